"""The code location, in Dagster's own words: assets, partitions, checks, jobs, sensors, resources.

Add here what people see and start in Dagster. How records are read and written is `importing`'s; Dagster's own tables
and processes are `dagster_instance`'s.
"""
