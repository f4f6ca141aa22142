"""The machine room that dagster.yaml names: storage, event log, run launcher, pruning, events without a run.

Add here what has to reach into Dagster's private parts; each of them stands with its reason in `private`, and nowhere
else. What people see in Dagster is `orchestration`'s, which stands above.
"""
