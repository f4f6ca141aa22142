"""The typed views as assets: `posts`, `likes`, `reposts`, `follows`, `profiles`, and those of the user's own.

What lives here: the asset of a view, and loading the views that `PARITY_TYPED_VIEWS` names. What must not: SQL
(`store.typed`). Annotations here are evaluated (no `from __future__ import annotations`), because Dagster reads them.
"""

from contextlib import closing
from importlib import import_module
from operator import attrgetter

import dagster as dg

from parity_dagster.errors import SettingsError
from parity_dagster.importing.service import ImportService
from parity_dagster.orchestration.markdown import account_link, link, record_url, table
from parity_dagster.orchestration.partitions import RECORDS_KEY
from parity_dagster.orchestration.plain_failures import plain_failures
from parity_dagster.settings import Settings
from parity_dagster.store.database import connect
from parity_dagster.store.typed import BLUESKY_VIEWS, TypedView, ViewSummary, find_samples, make_view, summarize_view

SHOWN_COLUMNS = 4
"""Typed columns shown of a sample."""


def registered_views(settings: Settings) -> list[TypedView]:
    """The views of the registered collections.

    Args:
        settings: `collections` and `typed_views` are read.

    Returns:
        The user's views, and those of this package whose names they leave free.

    Raises:
        SettingsError: a name does not lead to a view, or two views have the same name.
    """
    own: dict[str, TypedView] = {}
    for name in settings.typed_views:
        view = _load(name)
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


def _load(name: str) -> TypedView:
    module, _, attribute = name.partition(":")
    try:
        view = attrgetter(attribute)(import_module(module))
    except Exception as exc:
        raise SettingsError(
            f"PARITY_TYPED_VIEWS: {name} cannot be loaded ({type(exc).__name__}: {exc}); correct the name, or put its"
            " folder on PYTHONPATH"
        ) from exc
    if not isinstance(view, TypedView):
        raise SettingsError(f"PARITY_TYPED_VIEWS: {name} is not a parity_dagster.TypedView")
    return view


def build_typed_asset(view: TypedView) -> dg.AssetsDefinition:
    """Define the asset of a view.

    Args:
        view: what it shows.

    Returns:
        An asset downstream of `atproto/records`; it needs the resource `import_service`.
    """

    @dg.asset(
        key=view.name,
        deps=[RECORDS_KEY],
        group_name="typed",
        kinds={"postgres", "view", "bluesky"} if view in BLUESKY_VIEWS else {"postgres", "view"},
        owners=["team:parity"],
        tags={"parity/collection": view.collection},
        description=(
            f"{view.comment or view.collection}\n\nA view over `atproto_records`, always up to date: materializing it "
            "brings its definition up to date and counts what it shows. A field of the wrong type is null, never an "
            "error."
        ),
        metadata={
            "dagster/table_name": view.name,
            "dagster/column_schema": _schema(view),
            "dagster/column_lineage": _lineage(view),
            "collection": view.collection,
            "definition": dg.MetadataValue.md(f"```sql\n{view.select()}\n```"),
        },
    )
    def typed_view(import_service: dg.ResourceParam[ImportService]) -> dg.MaterializeResult[None]:
        with plain_failures(), closing(connect(import_service.settings)) as conn:
            is_new = make_view(conn, view)
            conn.commit()
            summary = summarize_view(conn, view)
            samples = find_samples(conn, view)
        shown = [column.name for column in view.columns][:SHOWN_COLUMNS]
        rows = [
            [
                account_link(row["did"]),
                link(row["rkey"], record_url(row["did"], view.collection, row["rkey"], view.link)),
                *(row[name] for name in shown),
            ]
            for row in samples
        ]
        return dg.MaterializeResult(
            metadata={
                **_numbers(summary),
                "definition_changed": is_new,
                "latest_records": dg.MetadataValue.md(table(["account", "record", *shown], rows)),
            }
        )

    return typed_view


def _numbers(summary: ViewSummary) -> dict[str, dg.MetadataValue]:
    metadata: dict[str, dg.MetadataValue] = {
        "dagster/row_count": dg.MetadataValue.int(summary.rows),
        "accounts": dg.MetadataValue.int(summary.accounts),
        "inactive_rows": dg.MetadataValue.int(summary.inactive),
        "nulls_by_column": dg.MetadataValue.md(table(["column", "#missing or malformed"], list(summary.nulls.items()))),
    }
    if summary.first is not None and summary.last is not None:
        metadata["first_created_at"] = dg.MetadataValue.text(summary.first.isoformat())
        metadata["last_created_at"] = dg.MetadataValue.text(summary.last.isoformat())
    return metadata


def _schema(view: TypedView) -> dg.TableSchema:
    return dg.TableSchema(
        columns=[
            dg.TableColumn(name, type=sql_type, description=comment)
            for name, sql_type, comment in view.described_columns()
        ]
    )


def _lineage(view: TypedView) -> dg.TableColumnLineage:
    return dg.TableColumnLineage(
        {
            name: [dg.TableColumnDep(asset_key=RECORDS_KEY, column_name=view.source_of(name))]
            for name, *_ in view.described_columns()
        }
    )
