"""The asset `accounts`: the view over accounts, brought up to date and counted.

Annotations here are evaluated (no `from __future__ import annotations`), because Dagster reads them.
"""

from contextlib import closing

import dagster as dg

from parity_dagster.dagster_instance.keys import RECORDS_KEY
from parity_dagster.orchestration.dagster_compat import plain_failures
from parity_dagster.orchestration.markdown import account_link, table
from parity_dagster.service import ImportService
from parity_dagster.store.accounts_view import COLUMNS, AccountsView, summarize_accounts
from parity_dagster.store.database import connect
from parity_dagster.store.typed import make_view


def build_accounts_asset(view: AccountsView, freshness: dg.FreshnessPolicy | None = None) -> dg.AssetsDefinition:
    """Define the asset of the view over accounts; it needs the resource `import_service`."""

    @dg.asset(
        key=view.name,
        code_version=view.version(),
        freshness_policy=freshness,
        deps=[RECORDS_KEY],
        group_name="overview",
        kinds={"postgres", "view"},
        owners=["team:parity"],
        description=(
            "Accounts, one row each: handle, host, status, records, and how old the stalest copy is.\n\nA view over the"
            " state table and the identities, always up to date; it joins with the typed views by `did`. Materializing"
            " it brings its definition up to date and counts what it shows."
        ),
        metadata={
            "dagster/table_name": view.name,
            "dagster/column_schema": dg.TableSchema(
                columns=[
                    dg.TableColumn(name, type=sql_type, description=comment)
                    for name, (sql_type, comment) in COLUMNS.items()
                ]
            ),
            "definition": dg.MetadataValue.md(f"```sql\n{view.select()}\n```"),
        },
    )
    def accounts(import_service: dg.ResourceParam[ImportService]) -> dg.MaterializeResult[None]:
        with plain_failures(), closing(connect(import_service.settings)) as conn:
            is_new = make_view(conn, view)
            conn.commit()
            summary = summarize_accounts(conn, view)
        stalest = [
            [account_link(row["did"]), row["handle"] or "", row["records"], row["stalest_at"].isoformat()]
            for row in summary.stalest
        ]
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": dg.MetadataValue.int(summary.rows),
                "with_handle": dg.MetadataValue.int(summary.with_handle),
                "handles_verified": dg.MetadataValue.int(summary.verified),
                "by_status": dg.MetadataValue.md(
                    table(["status", "#accounts"], [[status or "not asked yet", n] for status, n in summary.statuses])
                ),
                "stalest": dg.MetadataValue.md(table(["account", "handle", "#records", "stalest copy"], stalest)),
                "definition_changed": is_new,
            }
        )

    return accounts
