"""Every SQL statement, and what runs them.

Add here what is asked of PostgreSQL. Knows no network and no Dagster. Modules whose functions take an
`AsyncConnection` are for walking and live writing (`states`, `pages`, `walk_pages`, `live`, `outbox`, `identities`,
`failed_records`); those that take a `psycopg.Connection` are for reading and single commands (`queue`, `listing`,
`consistency`, `overview`, `restore`, `suspects`, `typed`). Tables are made by `migrations` alone; sessions are opened
by `connecting` alone.
"""
