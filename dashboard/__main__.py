"""The live dashboard over the topics: python -m dashboard --conf conf/local.yaml [--port 8080] [--host 127.0.0.1]."""

import argparse
import logging
import socket
import sys
from pathlib import Path

import msgspec
import uvicorn

from dashboard.app import make_app
from dashboard.ingest.feed import Feed
from dashboard.panels.models import Models, ModelsThread
from dashboard.panels.state import SILENT_AFTER_MS, DashboardState
from dashboard.user.page import Users
from dashboard.views import Views
from jobs.common.settings import ConfigError, Settings, load_settings
from udfs.config.durations import duration_ms
from udfs.contracts.clicks import ClickLimits
from udfs.kafka.errors import KafkaClientError
from udfs.kafka.properties import client_options
from udfs.measurement.kpis import KPIS_FILE, KpiError, load_kpis
from udfs.rollout.registry import RegistryError

LOOPBACK = ("127.0.0.1", "localhost", "::1")
NEXT_PORTS = 20


def listen(host: str, port: int) -> socket.socket:
    """A socket at the port, or at the first free one after it. Raises OSError when the host is none of this machine."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for number in (*range(port, min(port + NEXT_PORTS, 65_536)), 0):
        listener = socket.socket(family)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, number))
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
    models = Models(settings.model.registry, Path(settings.model.bundle))
    views = Views(state, models, load_kpis(conf.with_name(KPIS_FILE)))
    decode = settings.decode
    limits = ClickLimits(decode.max_record_bytes, duration_ms(decode.max_behind), duration_ms(decode.max_ahead))
    users = Users(
        settings.kafka,
        topics,
        limits,
        settings.state.history_length,
        models.registry,
        Path(settings.model.bundle),
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


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="dashboard", description="The live dashboard over the topics.")
    parser.add_argument("--conf", type=Path, required=True)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--port", type=int, default=8080, help="8080, or the next one that is free")
    parser.add_argument("--host", default="127.0.0.1", help="127.0.0.1: this machine alone; there is no login")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.ERROR, format="dashboard: %(message)s")
    try:
        settings = load_settings(options.conf, options.set)
        with listen(options.host, options.port) as listener:
            port = listener.getsockname()[1]
            is_local = options.host in LOOPBACK
            shown = f"[{options.host}]" if ":" in options.host else options.host
            print(f"dashboard: http://{shown}:{port}", flush=True)
            if not is_local:
                print("dashboard: whoever reaches this address can read all of it; there is no login", flush=True)
            serve(settings, options.conf, listener, [*LOOPBACK, "[::1]"] if is_local else ["*"])
    except (ConfigError, KpiError, RegistryError, KafkaClientError, OSError) as error:
        print(f"dashboard: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
