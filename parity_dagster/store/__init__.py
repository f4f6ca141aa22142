"""Every SQL statement, and what runs them.

Add here what is asked of PostgreSQL. Knows no network and no Dagster. Statements of walking and live writing take an
`AsyncConnection` (`states`, `pages`, `walk_pages`, `live`, `mapper_tables`, `identities`, `failed_records`, what the
writer puts into `outbox`); those for reading and single commands a `psycopg.Connection` (`queue`, `listing`,
`consistency`, `overview`, `restore`, `suspects`, `records`, `typed`, what takes from `outbox`). Tables are made by
`migrations` alone; sessions are opened by `connecting` alone.
"""
