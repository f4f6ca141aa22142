"""The machine room that dagster.yaml names: storage, event log, run launcher, pruning, and reporting without a run.

Add here what has to reach into Dagster's private parts.
"""
