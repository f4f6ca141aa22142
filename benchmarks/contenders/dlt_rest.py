"""dlt's REST source, merging on the URI: declared as its documentation has it, with the hints that spare it work."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.contenders.task import Done, Run, Task


def dlt(task: Task, stack: ExitStack) -> Run:
    """A resource per PDS over its pairs, `write_disposition="merge"`, `primary_key="uri"`, the value as one column."""
    os.environ["RUNTIME__DLTHUB_TELEMETRY"] = "false"
    os.environ["RUNTIME__LOG_LEVEL"] = "ERROR"
    import dlt as dlt_library
    from dlt.sources.rest_api import rest_api_resources

    by_host: dict[str, list[dict[str, str]]] = {}
    for did, nsid, pds in task.pairs:
        by_host.setdefault(pds, []).append({"did": did, "collection": nsid})
    resources: list[Any] = []
    for number, (pds, pairs) in enumerate(by_host.items()):
        listing = dlt_library.resource([pairs], name=f"pairs_{number}", selected=False)
        resources += rest_api_resources(
            {
                "client": {
                    "base_url": f"{pds}/xrpc/",
                    "paginator": {"type": "cursor", "cursor_path": "cursor", "cursor_param": "cursor"},
                },
                "resources": [
                    listing,
                    {
                        "name": f"records_{number}",
                        "table_name": "records",
                        "primary_key": "uri",
                        "write_disposition": "merge",
                        "max_table_nesting": 0,
                        "columns": {"value": {"data_type": "json"}},
                        "endpoint": {
                            "path": "com.atproto.repo.listRecords",
                            "params": {
                                "repo": f"{{resources.pairs_{number}.did}}",
                                "collection": f"{{resources.pairs_{number}.collection}}",
                                "limit": 100,
                            },
                            "data_selector": "records",
                        },
                    },
                ],
            }
        )
    pipeline = dlt_library.pipeline(
        "bench",
        pipelines_dir=str(Path(task.home) / f"dlt-{os.getpid()}"),
        # dlt insists on a host and a password; libpq goes by the options behind the question mark
        destination=dlt_library.destinations.postgres(task.database_url.replace("@/", ":none@localhost/")),
        dataset_name="dlt_bench",
    )

    def run() -> Done:
        pipeline.run(resources).raise_on_failed_jobs()
        with pipeline.sql_client() as client, client.execute_query("SELECT count(*) FROM records") as cursor:
            return Done(cursor.fetchall()[0][0])

    return run
