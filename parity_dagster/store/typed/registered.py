"""Which typed views there are: Bluesky's, and those that the settings name."""

from __future__ import annotations

from parity_dagster.errors import SettingsError
from parity_dagster.settings import Settings, load_object
from parity_dagster.store.typed.bluesky import BLUESKY_VIEWS
from parity_dagster.store.typed.view import TypedView


def registered_views(settings: Settings) -> list[TypedView]:
    """The views of the registered collections: the user's, and those of this package whose names they leave free.

    Raises:
        SettingsError: a name does not lead to a view, or two views have the same name.
    """
    own: dict[str, TypedView] = {}
    for name in settings.typed_views:
        view = load_object("PARITY_TYPED_VIEWS", name)
        if not isinstance(view, TypedView):
            raise SettingsError(f"PARITY_TYPED_VIEWS: {name} is not a parity_dagster.TypedView")
        if view.name in own:
            raise SettingsError(f"PARITY_TYPED_VIEWS: two views are called {view.name}; rename one")
        if view.collection not in settings.collections:
            raise SettingsError(
                f"PARITY_TYPED_VIEWS: {name} shows {view.collection}, which is not registered; add it to"
                " PARITY_COLLECTIONS"
            )
        own[view.name] = view
    ours = [view for view in BLUESKY_VIEWS if view.collection in settings.collections and view.name not in own]
    return [*ours, *own.values()]
