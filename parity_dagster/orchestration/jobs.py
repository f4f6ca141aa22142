"""The jobs: import accounts by run config or partitions of the asset, refresh what stands on them, check them.

Annotations here are evaluated (no `from __future__ import annotations`), because Dagster reads them.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import dagster as dg
from pydantic import Field

from parity_dagster.dagster_instance.keys import from_partition_key
from parity_dagster.errors import InvalidIdentifier, ParityError
from parity_dagster.models import ImportResult, Pair
from parity_dagster.orchestration.checks import CHECKS, QUICK_CHECKS
from parity_dagster.orchestration.overview import REFRESH_OVERVIEW
from parity_dagster.orchestration.partitions import register_dids, register_within
from parity_dagster.orchestration.queue import batch_pairs, importing_alone, pairs_of_runs
from parity_dagster.orchestration.step_events import SOURCE_HELP, import_in_step
from parity_dagster.service import ImportService
from parity_dagster.settings import Settings

IMPORT_RECORDS = "import_records"
IMPORT_PARTITIONS = "import_partitions"
RUN_CHECKS = "run_all_checks"


DIDS_HELP = (
    "accounts to import: DIDs, or handles, as in"
    " {dids: [did:plc:z72i7hdynmk6r22z27h6tvur, bsky.app], collections: [app.bsky.feed.post]}"
)
"""What the launchpad shows beside its editor: an example that can be launched as it is."""


class ImportRecordsConfig(dg.Config):
    """Run config of the job `import_records`."""

    dids: list[str] = Field([], description=DIDS_HELP)
    collections: list[str] = Field([], description="collections of each; without any, all registered ones")
    partitions: list[str] = Field([], description="further single pairs, each as COLLECTION|DID")
    batch: str = Field("", description="batch of queued pairs; the queue's sensor fills this in")
    refresh: bool = Field(False, description="read completed pairs again from their start")
    reread: bool = Field(False, description="read them even if nothing has changed, and correct what differs")
    source: str = Field("", description=SOURCE_HELP)


@dg.op(out=dg.Out(dg.Nothing))
def import_accounts(
    context: dg.OpExecutionContext,
    config: ImportRecordsConfig,
    import_service: dg.ResourceParam[ImportService],
) -> Iterator[dg.DagsterEvent | dg.Output[None]]:
    """Register accounts as partitions and import them, many pairs at once."""
    # what a person has added to the config of a batch's run is asked for by nobody else
    is_only_batch = config.batch and not config.dids and not config.partitions
    if is_only_batch and context.run.parent_run_id is None:
        with importing_alone(import_service.settings, config.batch) as is_ours:
            if is_ours:
                yield from _import_wanted(context, config, import_service)
            else:
                context.log.info("Another run imports this batch: two daemons have asked for it at the same moment.")
                yield dg.Output(None)
    else:
        yield from _import_wanted(context, config, import_service)


def _import_wanted(
    context: dg.OpExecutionContext, config: ImportRecordsConfig, import_service: ImportService
) -> Iterator[dg.DagsterEvent | dg.Output[None]]:
    pairs, refused = wanted_pairs(config, import_service)
    if config.batch and context.run.parent_run_id is not None:
        pairs += left_over(context, import_service.settings, set(pairs))
    settings = import_service.settings
    dids = [pair.did for pair in pairs if pair.collection in settings.collections]
    beyond: set[str] = set()
    if config.batch:
        beyond = register_within(context.instance, dids, settings.partition_limit).beyond
    else:  # somebody has named them
        register_dids(context.instance, dids)
    yield from import_in_step(
        context,
        import_service,
        pairs,
        refresh=config.refresh,
        reread=config.reread,
        source=config.source,
        refused=refused,
        beyond=beyond,
        is_planned=False,
    )


def left_over(context: dg.OpExecutionContext, settings: Settings, known: Collection[Pair]) -> list[Pair]:
    """What the runs that this one is executed again for have left: their batch is dissolved, their pairs are not done.

    Raises:
        dagster.Failure: nothing is left, so that there is nothing to do.
    """
    _, runs = context.instance.get_run_group(context.run_id) or ("", [])
    found = pairs_of_runs(settings, [run.run_id for run in runs if run.run_id != context.run_id])
    left = [pair for pair in found if pair not in known]
    if not left and not known:
        raise dg.Failure(
            description=f"Nothing is left of run {context.run.parent_run_id}: its pairs are complete, or other runs "
            "have taken them up since. `parity import --resume` imports everything that is not complete.",
            allow_retries=False,
        )
    return left


def wanted_pairs(config: ImportRecordsConfig, service: ImportService) -> tuple[list[Pair], list[ImportResult]]:
    """The pairs that a run config asks for; what is wrong in it costs only itself.

    Returns:
        Each pair once, in the order asked for, and a failed result for each account or key that cannot be one.

    Raises:
        dagster.Failure: nothing is asked for, or the queue could not be read.
    """
    if not config.dids and not config.partitions and not config.batch:
        raise dg.Failure(
            description="Nothing to import: give dids, as in {dids: [did:plc:z72i7hdynmk6r22z27h6tvur]}.",
            allow_retries=False,
        )
    pairs: dict[Pair, None] = {}
    refused: list[ImportResult] = []
    if config.batch:
        try:
            pairs.update(dict.fromkeys(batch_pairs(service.settings, config.batch)))
        except ParityError as exc:
            raise dg.Failure(description=str(exc), allow_retries=False) from None
    for account in dict.fromkeys(config.dids):
        try:
            did = service.resolve(account)
        except ParityError as exc:
            refused.append(ImportResult(account, "*", error=str(exc), error_code=exc.code))
            continue
        pairs.update(dict.fromkeys(Pair(did, nsid) for nsid in config.collections or service.settings.collections))
    for key in dict.fromkeys(config.partitions):
        try:
            pairs[from_partition_key(key)] = None
        except InvalidIdentifier as exc:
            refused.append(ImportResult(key, "*", error=str(exc), error_code=exc.code))
    return list(pairs), refused


_FLAT_CONFIG = {
    **{
        name: dg.Field(
            [str] if field.annotation == list[str] else field.annotation,
            is_required=False,
            description=field.description,
        )
        for name, field in ImportRecordsConfig.model_fields.items()
    },
    "ops": dg.Field(dict, is_required=False, description="the same in Dagster's own nested form"),
    "resources": dg.Field(dict, is_required=False, description="settings of this run only"),
}


@dg.config_mapping(config_schema=_FLAT_CONFIG)
def run_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Accept `{dids: […], collections: […]}` beside `{ops: {import_records: {config: {…}}}}`."""
    nested = {key: config[key] for key in ("ops", "resources") if key in config}
    flat = {key: value for key, value in config.items() if key not in nested}
    if flat:
        given = nested.get("ops", {}).get(IMPORT_RECORDS, {}).get("config", {})
        nested["ops"] = {IMPORT_RECORDS: {"config": {**given, **flat}}}
    return nested


@dg.job(
    name=IMPORT_RECORDS,
    config=run_config,
    executor_def=dg.in_process_executor,
    description="Imports the accounts of its run config. In the launchpad, for example:\n\n"
    # in short lines, because the pane beside the graph cuts off long ones
    "```yaml\ndids:\n- did:plc:z72i7hdynmk6r22z27h6tvur\n- bsky.app\ncollections: [app.bsky.feed.post]\n```\n\n"
    "Without `collections` it is all of `PARITY_COLLECTIONS`.",
)
def import_records() -> None:
    """One step, in which all pairs are walked concurrently."""
    # the alias is the name in run config; op definitions and jobs may not share one
    import_accounts.alias(IMPORT_RECORDS)()


refresh_overview = dg.define_asset_job(
    REFRESH_OVERVIEW,
    selection=dg.AssetSelection.groups("typed", "overview").without_checks() | dg.AssetSelection.checks(*QUICK_CHECKS),
    description="Counts the typed views, makes the overview, and executes the checks that only ask Postgres.",
)
run_all_checks = dg.define_asset_job(
    RUN_CHECKS,
    selection=dg.AssetSelection.checks(*CHECKS),
    description="Executes every check, the audit included, which reads some accounts again from their PDSes.",
)


def build_import_partitions(records: dg.AssetsDefinition) -> Any:
    """The job over the asset, for `dagster job execute --tags '{"dagster/partition": "COLLECTION|DID"}'`."""
    return dg.define_asset_job(
        IMPORT_PARTITIONS,
        selection=dg.AssetSelection.assets(records).without_checks(),
        executor_def=dg.in_process_executor,
        description="Imports the partitions a run is tagged with.",
    )
