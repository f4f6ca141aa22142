"""What dagster.yaml names: storage, event log, run launcher; pruning, and asset events without a run.

Add here what has to reach into Dagster's private parts; each of them stands with its reason in `private`, and nowhere
else. What people see in Dagster is `orchestration`'s, which stands above.
"""
