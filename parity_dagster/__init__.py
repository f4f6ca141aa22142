"""Imports the history of AT Protocol accounts into Postgres through Dagster."""
