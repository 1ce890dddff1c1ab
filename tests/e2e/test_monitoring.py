"""A real Prometheus scrapes running jobs, and finds there whatever rules and dashboard read."""

import http.client
import json
import os
import shutil
import time
from contextlib import suppress
from urllib.parse import quote

import pytest
import yaml

from tests.support.monitoring import PROMETHEUS, RULES, all_rules, dashboard_queries, metric_names, recorded
from tools.stack.flink_client import JobError, wait_for
from tools.stack.http_client import get_text
from tools.stack.processes import start, stop, wait_until
from training.promote import main
from training.simulation.traffic import HOUR_MS

pytestmark = pytest.mark.e2e

CLICK = {"user_id": "ada", "event_name": "view_item"}
ROLLOUT = """
salt: e2e
champion: test-model
"""


class Prometheus:
    """The server at a port of this machine."""

    def __init__(self, port: int):
        self._port = port

    def get(self, path: str) -> dict | list:
        return json.loads(get_text(self._port, f"/api/v1/{path}"))["data"]

    def query(self, expression: str) -> list:
        """What an expression gives now."""
        return self.get(f"query?query={quote(expression)}")["result"]

    def is_ready(self) -> bool:
        try:
            get_text(self._port, "/-/ready")
        except (OSError, http.client.HTTPException):
            return False
        return True


@pytest.fixture
def prometheus(stack, tmp_path):
    """Prometheus with the project's configuration, but for where to scrape and how often."""
    if shutil.which("prometheus") is None and "CI" not in os.environ:
        pytest.skip("prometheus is not here: apt-get install prometheus")
    configuration = yaml.safe_load(PROMETHEUS.read_text())
    configuration["global"] = {"scrape_interval": "2s", "evaluation_interval": "2s"}
    configuration["rule_files"] = [str(rules) for rules in RULES]
    (scrape,) = configuration["scrape_configs"]
    del scrape["dns_sd_configs"]
    metrics = [process.ports["metrics"] for process in stack.processes.values() if "metrics" in process.ports]
    scrape["static_configs"] = [{"targets": [f"127.0.0.1:{port}" for port in metrics]}]
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(configuration))
    port = stack._free_port()
    command = [
        "prometheus",
        f"--config.file={tmp_path / 'prometheus.yml'}",
        f"--storage.tsdb.path={tmp_path / 'metrics'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    process = start("prometheus", command, tmp_path / "prometheus.log", tmp_path, os.environ, {"web": port})
    try:
        server = Prometheus(port)
        wait_until(server.is_ready, process, 60)
        yield server
    finally:
        stop([process])


def test_prometheus_finds_what_rules_and_dashboard_read(pipeline, flowing, prometheus, bundle_directory, tmp_path):
    registry = str(tmp_path / "registry")
    (tmp_path / "rollout.yaml").write_text(ROLLOUT)
    assert main(["stage", str(bundle_directory), "--registry", registry]) == 0
    assert main(["apply", str(tmp_path / "rollout.yaml"), "--why", "first", "--registry", registry]) == 0
    (tmp_path / "features.yaml").write_text("extends: population\n")
    # Some clicks are broken and all scores take too long, so that rates and shares have something to show.
    # Drift has no level before a window is over: there are old clicks, whose window later ones end at once.
    pipe = pipeline(
        f"model.registry={registry}",
        "execution.latency_budget=1 ms",
        "feature_log.user_share=1.0",
        "drift.window=1 min",
        "drift.slide=1 min",
        "event_time.idle=2 s",
        f"clicks.declaration={tmp_path / 'features.yaml'}",
        f"population.dir={tmp_path / 'population'}",
    )
    pipe.start()
    pipe.start_other("jobs.measure_sessions")
    pipe.start_other("jobs.watch_drift")
    long_ago = CLICK | {"event_time": (time.time_ns() // 1_000_000) - HOUR_MS}
    pipe.send("clicks", [(b"ada", json.dumps(long_ago).encode(), None) for _ in range(20)])
    pipe.read("feature_log", at_least=20)
    pipe.send("clicks", [(b"ada", b"{", None) for _ in range(20)])
    flowing(pipe, 100, [f"u{number}" for number in range(50)])
    pipe.read("drift", at_least=1)

    def missing() -> set[str]:
        return wanted - set(prometheus.get("label/__name__/values"))

    wanted = {name for rule in all_rules() for name in metric_names(rule["expr"])} | recorded()
    wanted |= {name for query in dashboard_queries() for name in metric_names(query)}
    began = time.monotonic()
    while missing() and time.monotonic() < began + 90:
        pipe.send("clicks", [(b"ada", b"{", None)])
        time.sleep(2)
    assert not missing()

    def health() -> list[str]:
        return [rule["health"] for group in prometheus.get("rules")["groups"] for rule in group["rules"]]

    wait_for(lambda: health() == ["ok"] * len(all_rules()), 30, "rules to be run")

    def empty() -> list[str]:
        return [query for query in dashboard_queries() if not prometheus.query(query)]

    with suppress(JobError):  # the rate of what has just begun takes two scrapes
        wait_for(lambda: not empty(), 30, "panels to have something to show")
    assert not empty()

    def begun() -> set[str]:
        return {alert["labels"]["alertname"] for alert in prometheus.get("alerts")["alerts"]}

    wait_for(lambda: "LatencyBudgetMissed" in begun(), 60, "the alert on latency to begin")
    firing = [alert for alert in prometheus.get("alerts")["alerts"] if alert["state"] == "firing"]
    assert not firing
