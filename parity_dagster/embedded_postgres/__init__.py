"""The PostgreSQL that runs when no PARITY_DATABASE_URL is given: who shares it (`sharing`), its processes (`server`),
and the programs of the wheel (`programs`).

Add here what is about running a server. Knows no table and no statement.
"""
