"""How fast the importer is, next to what is physically possible and to what else one could use.

`python -m benchmarks` starts a PostgreSQL server and a sample network on loopback, measures the contenders in rounds,
and prints one table of medians. Nothing here is part of the installed package.
"""
