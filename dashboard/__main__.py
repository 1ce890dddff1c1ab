"""The live dashboard over the topics: python -m dashboard --conf conf/local.yaml [--port 8080] [--host 127.0.0.1].

Exit codes: 0, interrupted; 2, the settings, the registry or the address can't be used.
"""

import logging
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

import click
import msgspec
import uvicorn

from dashboard.app import make_app
from dashboard.ingest.feed import Feed
from dashboard.panels.models import ModelPanel, ModelsThread
from dashboard.panels.state import SILENT_AFTER_MS, DashboardState
from dashboard.user.page import Users
from dashboard.views import Views
from jobs.common.population import stored_tables
from jobs.common.settings import ConfigError, Settings, click_topic, load_settings
from udfs.config.command_line import EXIT_OK, EXIT_USAGE, Command, conf_option, run, set_option
from udfs.config.durations import duration_ms
from udfs.kafka.errors import KafkaClientError
from udfs.kafka.properties import client_options
from udfs.measurement.kpis import KPIS_FILE, KpiError, load_kpis
from udfs.rollout.registry import RegistryError

LOOPBACK = ("127.0.0.1", "localhost", "::1")
NEXT_PORTS = 20


def listen(host: str, port: int) -> socket.socket:
    """A socket at the port, or at the first free one after it. Raises OSError unless the host is of this machine."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for number in (*range(port, min(port + NEXT_PORTS, 65_536)), 0):
        listener = socket.socket(family)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, number))
            listener.listen()  # so that whoever opens the address as soon as it is printed waits for the page
        except OSError:
            listener.close()
            if number == 0:
                raise
        else:
            return listener
    raise AssertionError("the last port is any free one")


def serve(settings: Settings, conf: Path, listener: socket.socket, hosts: list[str]) -> None:
    """Serve until interrupted. Raises KpiError, RegistryError, KafkaClientError before anything has started."""
    client_options(settings.kafka)
    topics = {role: name for role, name in msgspec.to_builtins(settings.topics).items() if role in SILENT_AFTER_MS}
    state = DashboardState(topics, duration_ms(settings.execution.latency_budget))
    bundle, trusted_keys = Path(settings.model.bundle), settings.model.trusted_keys
    models = ModelPanel(settings.model.registry, bundle, trusted_keys)
    views = Views(state, models, load_kpis(conf.with_name(KPIS_FILE)))
    clicks = click_topic(settings)
    users = Users(
        settings.kafka,
        topics,
        clicks,
        settings.state.history_length,
        duration_ms(settings.clicks.duplicates_within),
        models.registry,
        bundle,
        settings.clicks.follow_logins,
        stored_tables(settings, clicks.layout),
        trusted_keys,
    )
    feed, models_thread = Feed(settings.kafka, topics, state), ModelsThread(models)
    feed.start()
    models_thread.start()
    options = uvicorn.Config(make_app(views, users, hosts), log_level="warning", access_log=False, server_header=False)
    try:
        uvicorn.Server(options).run(sockets=[listener])
    finally:
        feed.stop()
        models_thread.stop()


@click.command(
    "dashboard",
    cls=Command,
    errors=dict.fromkeys((ConfigError, KpiError, RegistryError, KafkaClientError, OSError), EXIT_USAGE),
    interrupted=EXIT_OK,
)
@conf_option()
@set_option("kafka.bootstrap.servers=127.0.0.1:9092")
@click.option("--port", type=int, default=8080, help="Port to listen on, or the next one that is free.")
@click.option(
    "--host",
    default="127.0.0.1",
    metavar="ADDRESS",
    help="Address to listen on. There is no login: whoever reaches an address other than loopback can read everything.",
)
def command(conf: Path, overrides: tuple[str, ...], port: int, host: str) -> None:
    """Serve the live dashboard.

    \b
    Examples:
      intent dashboard --conf conf/local.yaml
      intent dashboard --conf conf/mine.yaml --set model.registry=models/registry --port 8090
    """
    logging.basicConfig(level=logging.ERROR, format="dashboard: %(message)s")
    settings = load_settings(conf, overrides)
    with listen(host, port) as listener:
        is_local = host in LOOPBACK
        shown = f"[{host}]" if ":" in host else host
        print(f"dashboard: http://{shown}:{listener.getsockname()[1]}", flush=True)
        if not is_local:
            print("dashboard: everyone who can reach this address can read everything; there is no login", flush=True)
        serve(settings, conf, listener, [*LOOPBACK, "[::1]"] if is_local else ["*"])


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until interrupted; return the exit code."""
    return run(command, "python -m dashboard", arguments)


if __name__ == "__main__":
    sys.exit(main())
