"""From pairs to committed records: claims, the walk, batches, the writer, retries, events after the commit.

Add here what an import does. Knows `atproto` and `store`, never Dagster; statements are the store's. `ImportService`
(`parity_dagster.service`) is the only way in from outside.
"""
