"""How the table `atproto_records` is described in the UI.

What lives here: its columns. What must not: the table itself (`store.migrations`; a test compares the two).
"""

from __future__ import annotations

import dagster as dg

RECORDS_METADATA = {
    "dagster/table_name": "atproto_records",
    "dagster/column_schema": dg.TableSchema(
        columns=[
            dg.TableColumn("did", "text", "Account, from the request, never from the answer"),
            dg.TableColumn("collection", "text", "NSID of the collection"),
            dg.TableColumn("rkey", "text", "Record key; did, collection and rkey are the primary key"),
            dg.TableColumn("cid", "text", "Content identifier of this version; null when the PDS names none"),
            dg.TableColumn("value", "jsonb", "The record"),
            dg.TableColumn("rev", "text", "Revision of the repository known when this version was observed"),
            dg.TableColumn("active", "boolean", "False while the account is deactivated, suspended or taken down"),
            dg.TableColumn("first_seen_at", "timestamptz", "When the record was stored first"),
            dg.TableColumn("updated_at", "timestamptz", "When this version was stored"),
            dg.TableColumn("uri", "text", "at://did/collection/rkey"),
        ]
    ),
}
"""Metadata of the asset's definition."""
