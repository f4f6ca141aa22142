"""Watching imports from outside: Prometheus metrics and structured logs.

Add here listeners and collectors for other systems. Knows no Dagster, and changes nothing.
"""
