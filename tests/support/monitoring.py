"""Rules and dashboard, as tests read them."""

import json
import re
from functools import cache
from pathlib import Path

import yaml

CONF = Path(__file__).parents[2] / "conf"
PROMETHEUS = CONF / "prometheus" / "prometheus.yml"
RULES = tuple(sorted((CONF / "prometheus").glob("*.rules.yml")))
DASHBOARD = CONF / "grafana" / "dashboards" / "purchase-intent.json"


def alerts() -> list[dict]:
    return [rule for rule in all_rules() if "alert" in rule]


def recorded() -> set[str]:
    """Names of the recording rules."""
    return {rule["record"] for rule in all_rules() if "record" in rule}


@cache
def all_rules() -> list[dict]:
    return [rule for file in RULES for group in yaml.safe_load(file.read_text())["groups"] for rule in group["rules"]]


def dashboard_queries() -> list[str]:
    """The queries of all panels, for all jobs."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return [target["expr"].replace("$job", ".*") for panel in panels for target in panel.get("targets", ())]


def metric_names(query: str) -> set[str]:
    """Names of the metrics in a PromQL expression, as the project has them: flink_..., intent_..., with a colon where
    recorded."""
    without_strings = re.sub(r'"[^"]*"', '""', query)
    return set(re.findall(r"\b(?:flink|intent)[_:][\w:]+", without_strings)) | set(re.findall(r"\bup\b", query))
