"""Watching imports from outside: Prometheus metrics and structured logs."""
