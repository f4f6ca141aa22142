"""Typed views over `atproto_records`: a collection's fields as columns that a malformed value cannot break.

Views, not tables: they cost the import nothing, hold no second copy, and can never disagree with the records. A
value of the wrong type is null in its column; it is never an error, and the record itself stays readable in
`atproto_records.value`.
"""

from parity_dagster.store.typed.bluesky import BLUESKY_VIEWS
from parity_dagster.store.typed.columns import Column
from parity_dagster.store.typed.making import ViewSummary, find_samples, make_view, summarize_view
from parity_dagster.store.typed.registered import registered_views
from parity_dagster.store.typed.view import TypedView

__all__ = [
    "BLUESKY_VIEWS",
    "Column",
    "TypedView",
    "ViewSummary",
    "find_samples",
    "make_view",
    "registered_views",
    "summarize_view",
]
