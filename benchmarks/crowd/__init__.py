"""Many small accounts through the whole of it: a dropped list, the sensors, the queue, the runs.

`python -m benchmarks.crowd` drops 10,000 accounts × 3 collections with 1 to 30 records each into the inbox of a fresh
project and prints where the time went, what the processes needed, what Dagster's part of it is per pair, how stock
Dagster does with one run per pair, and how fast the UI's partition query answers.
"""
