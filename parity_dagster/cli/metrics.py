"""`parity metrics`: the state table in Prometheus' words."""

from __future__ import annotations

import click


@click.command("metrics", short_help="Print or serve metrics for Prometheus.")
@click.option("--serve", is_flag=True, help="Answer scrapes on http://HOST:PORT/metrics until Ctrl-C.")
@click.option("--port", type=click.IntRange(0, 65535), default=9464, show_default=True, help="Port for --serve.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address for --serve; 0.0.0.0 for all.")
def metrics(serve: bool, port: int, host: str) -> None:
    """Print metrics of the state table once, or serve them to Prometheus.

    They show how many pairs are pending, in progress, completed and failed (by error), how many retries are
    due, how old the oldest pending pair is, and how many records could not be stored. docs/monitoring.md
    explains each, docs/alerts.md has rules, docs/grafana.json a dashboard.

    \b
    Examples:
      parity metrics | grep parity_pairs
      parity metrics --serve --port 9464

    \b
    Variables: PARITY_DATABASE_URL, PARITY_HOME, PARITY_STATE_TABLE.
    Exit code: 0; 1 if the database cannot be read or the port is taken.
    """
    from prometheus_client import generate_latest, start_http_server

    from parity_dagster.monitoring.prometheus import state_registry
    from parity_dagster.settings import load_settings
    from parity_dagster.store.database import connect

    settings = load_settings()
    connect(settings).close()  # what is wrong with the database is said here, not at the first scrape
    registry = state_registry(settings)
    if not serve:
        click.echo(generate_latest(registry).decode(), nl=False)
        return
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as exc:
        raise click.ClickException(f"cannot listen on {host}:{port} ({exc.strerror}); choose another --port") from None
    click.echo(f"Metrics on http://{host}:{server.server_port}/metrics; Ctrl-C ends.", err=True)
    try:
        thread.join()
    finally:
        server.shutdown()
        server.server_close()
