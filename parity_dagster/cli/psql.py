"""`parity psql`: PostgreSQL's own shell on the database that is in use."""

from __future__ import annotations

import click


@click.command(
    context_settings={"ignore_unknown_options": True, "help_option_names": ["-h", "--help"]},
    short_help="Open PostgreSQL's shell on the database.",
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[PSQL ARGUMENT]...")
def psql(arguments: tuple[str, ...]) -> None:
    """Open psql on the database that imports go to; the embedded server runs for as long as it is open.

    \b
    Examples:
      parity psql
      parity psql -c 'SELECT collection, count(*) FROM atproto_records GROUP BY 1'
      parity psql --csv -c 'SELECT did, created_at, text FROM posts' > posts.csv

    \b
    Variables: PARITY_DATABASE_URL, PARITY_HOME.
    Exit code: psql's own; 1 if the database cannot be reached.
    """
    import os
    import subprocess

    from psycopg import pq
    from psycopg.conninfo import conninfo_to_dict

    from parity_dagster.embedded_postgres.programs import find_program
    from parity_dagster.settings import load_settings
    from parity_dagster.store.database import connection_url

    parameters = conninfo_to_dict(connection_url(load_settings()))
    # A password has no place on a command line that others can list, so everything goes by libpq's own variables.
    variables = {
        option.keyword.decode(): option.envvar.decode() for option in pq.Conninfo.get_defaults() if option.envvar
    }
    environment = os.environ | {
        variables[name]: str(value) for name, value in parameters.items() if name in variables and value is not None
    }
    raise SystemExit(subprocess.run([find_program("psql"), *arguments], env=environment, check=False).returncode)  # noqa: S603 - the user's own arguments to psql, no shell
