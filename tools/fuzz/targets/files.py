"""Files that people write: settings, declarations, mappings, and the expressions and rules in them.

Contract: the content is accepted, or refused with the error that the reader's docstring names, in one line.
"""

import json
import tempfile
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any
from unittest.mock import patch

from jobs.common import settings as job_settings
from tools.fuzz.engine import ContractError
from tools.fuzz.target import Target
from tools.paths import PROJECT
from training.modeling.settings import TrainingError, load_training
from training.retraining.settings import RetrainingError, load_retraining
from udfs.config.reading import parse_yaml
from udfs.contracts.event_layout import STANDARD_LAYOUT
from udfs.features.columns import columns_of
from udfs.features.declaration_file import DeclarationError, from_json, load_declaration, to_json
from udfs.features.expressions import ExpressionError, Reader
from udfs.formats.avro import avro_parser
from udfs.formats.schema_registry import SchemaError
from udfs.mapping.adapter import ClickAdapter, RowError
from udfs.mapping.definition import MappingError, load_mapping
from udfs.measurement.kpis import KpiError, load_kpis
from udfs.measurement.labels import LabelError, find_label
from udfs.rollout.plan import RolloutError, check_rules, load_rollout
from udfs.rollout.rules import Rule, RuleError, check_rule

CONF = PROJECT / "conf"
_HOUR_MS = 3_600_000


def settings() -> Target:
    """The jobs' settings: a file over conf/base.yaml, which is parsed once."""
    base = (CONF / "base.yaml").read_text(encoding="utf-8")
    parsed = parse_yaml(base)
    cached = patch.object(
        job_settings, "parse_yaml", lambda text: deepcopy(parsed) if text == base else parse_yaml(text)
    )
    written = (CONF / "local.yaml").read_text(encoding="utf-8")
    extends = f"extends: {CONF / 'base.yaml'}\nkafka: {{bootstrap.servers: 'localhost:9092'}}\n"
    extends += "archive: {dir: 's3://bucket/archive'}\n"
    corpus = [extends + _flow(name, section) for name, section in parsed.items() if name not in ("kafka", "archive")]
    corpus += [
        extends + "clicks: {currency: EUR, exchange_rates: {USD: 0.9}}\n",
        extends + "experiments: {start: 2026-05-01T08:00:00Z, shares: {champion: 0.5, challenger: 0.5}}\n",
        extends + "delivery: {guarantee: exactly-once, transaction_timeout: 15 min}\n",
        extends + "model: {registry: /models, bundle: models/first}\ndrift: {window: 0 s, unwatched: [a]}\n",
        written.replace("extends: base.yaml", f"extends: {CONF / 'base.yaml'}"),
    ]

    def load(path: Path) -> object:
        with cached:
            loaded = job_settings.load_settings(path, (), {})
        outcomes = []
        for further in (
            job_settings.archive_settings, job_settings.outcome_settings, job_settings.session_settings,
            job_settings.drift_settings, job_settings.experiment_settings, job_settings.click_topic,
            job_settings.shared_memory_bytes, job_settings.printable,
        ):  # fmt: skip
            try:
                further(loaded)
            except job_settings.ConfigError as error:
                outcomes.append(str(error)[:20])
        return outcomes

    return _file_target(corpus, load, job_settings.ConfigError)


def training() -> Target:
    corpus = _sections(CONF / "training.yaml") + ["parameters: {max_depth: 5, eta: 0.1}\nmodel: xgboost\ncompare: []\n"]
    corpus += ["monotone: {cart_adds_30m: up}\nfeatures: [cart_adds_30m, device]\nbots: null\n"]
    corpus += [f"declaration: {CONF / 'features.yaml'}\nrule: {CONF / 'rollout.yaml'}\n"]
    return _file_target(corpus, load_training, TrainingError)


def retraining() -> Target:
    content = parse_yaml((CONF / "retraining.yaml").read_text(encoding="utf-8"))
    return _file_target([json.dumps(content)], lambda path: load_retraining(path, (), {}), RetrainingError)


def rollouts() -> Target:
    """Rollouts, and the checks of their rules against the standard features."""
    plan = {
        "salt": "s", "champion": "v1", "challenger_salt": "c", "control": {"share": 0.1, "at_most": 0.2},
        "challengers": [{"version": "v2", "share": 0.1, "at_most": 0.3, "start": 0.2},
                        {"version": "v3", "share": 0.0, "at_most": 0.5}],
        "shadows": ["v4"], "rule": {"any": ["cart_adds_30m >= 1", {"all": ["device in [mobile, tablet]"]}]},
        "eligible": {"all": ["country == DE", "membership_tier >= silver"]},
        "steps": [{"share": 0.1, "guardrails": {"conversion_rate": 0.1}}, {"share": 1.0}], "bandit": {"floor": 0.1},
    }  # fmt: skip
    small = {"salt": "s", "champion": "v1"}

    def load(path: Path) -> object:
        from udfs.features.declaration_file import STANDARD

        rollout = load_rollout(path)
        check_rules(rollout, STANDARD)
        return len(rollout.versions)

    return _file_target([json.dumps(plan), json.dumps(small)], load, RolloutError)


def kpis() -> Target:
    return _file_target(_sections(CONF / "kpis.yaml"), load_kpis, KpiError)


def labels() -> Target:
    """A label file, of which the first line names the label."""
    corpus = [f"{section.partition(':')[0]}\n{section}" for section in _sections(CONF / "labels.yaml")]

    def load(path: Path) -> object:
        name, _, content = path.read_text(encoding="utf-8").partition("\n")
        path.write_text(content, encoding="utf-8")
        return str(find_label(name, path))[:20]

    return _file_target(
        [*corpus, "purchase within 30 min\n", "add_to_cart within 2 h\n"], load, LabelError, UnicodeError
    )


def declarations() -> Target:
    """Declarations of features; one that is accepted is what the bundle's features.json says again."""
    small = {
        "extends": "standard", "kinds": {"spun_the_wheel": 100}, "features": {"own": {
            "spins_30m": {"value": "count(kind == spun_the_wheel, over=30m)", "unit": "events", "doc": "Spins"},
            "plan_now": {"value": "now.plan", "unit": "code", "doc": "Plan"}}},
        "columns": {"plan": {"type": "category", "names": ["free", "pro"]},
                    "rating": {"type": "number", "bytes": 1, "scale": 10, "field": "stars"}},
    }  # fmt: skip
    whole = {
        "session_gap": "30m", "windows": ["5m", "1h"], "features": {"g": {
            "views_{window}": {"value": "count(kind == view_item, over={window})", "unit": "events", "doc": "d"},
            "spread": {"value": "max(value) - min(value, over=session)", "unit": "money", "doc": "d"},
            "days": {"value": "count(kind == purchase, over=30d, by=1d)", "unit": "events", "doc": "d"},
            "own": {"python": "math.sin", "unit": "x", "doc": "d"}}},
    }  # fmt: skip

    def load(path: Path) -> object:
        declaration = load_declaration(path)
        again = from_json(to_json(declaration), "features.json")
        if (again.features, again.layout) != (declaration.features, declaration.layout):
            raise ContractError("features.json declares other features")
        return len(declaration.features)

    return _file_target([json.dumps(small), json.dumps(whole)], load, DeclarationError)


def mappings() -> Target:
    """Mapping files; those that are accepted map some rows."""
    corpus = [path.read_text(encoding="utf-8") for path in (CONF / "mappings").glob("*.yaml") if path.stem != "example"]
    corpus = [_without_comments(text) for text in corpus]
    at = 1_700_000_000_000
    rows = (
        {"user_id": "ada", "event_name": "view_item", "event_time": at, "price": "1,5", "items": [{"item_id": 1}]},
        {"user_id": 1, "event_type": "cart", "event_time": "2023-11-14 22:13:20 UTC", "price": 5.1, "category_id": 7},
        {"visitorid": 1, "event": "view", "timestamp": at, "itemid": 2, "userId": "u", "sessionId": 3},
    )

    def load(path: Path) -> object:
        outcome = []
        for _, mapping in load_mapping(path).by_pattern:
            adapter = ClickAdapter(mapping)
            for row in rows:
                try:
                    outcome.append(adapter.adapt(row) is not None)
                except RowError as error:
                    outcome.append(str(error)[:8])
        return outcome

    return _file_target(corpus, load, MappingError)


def expressions() -> Target:
    """The values of features."""
    columns, kinds = columns_of(STANDARD_LAYOUT), STANDARD_LAYOUT.kinds
    declared = parse_yaml((PROJECT / "udfs" / "features" / "standard.yaml").read_text(encoding="utf-8"))
    texts = {entry["value"] for group in declared["features"].values() for entry in group.values()}

    def run(data: bytes) -> str:
        value = Reader(kinds, columns, _HOUR_MS).read(data.decode(errors="replace"))
        return type(value).__name__

    return Target(tuple(text.encode() for text in sorted(texts)), run, (ExpressionError,))


def rules() -> Target:
    """The conditions of rules."""
    corpus = (b"cart_adds_30m >= 1", b"device in [mobile, tablet]", b"country == DE", b"membership_tier not in [gold]",
              b"value_now != 1.5", b"lifetime_events < 1e3")  # fmt: skip

    def run(data: bytes) -> str:
        check_rule(Rule(all=(data.decode(errors="replace"),)))
        return "whole"

    return Target(corpus, run, (RuleError,))


def avro_schemas() -> Target:
    """Avro schemas, which come from a registry; those that are accepted read two records."""
    from tools.fuzz.targets.clicks import AVRO_SCHEMA
    from udfs.contracts.rejects import Reject

    def run(data: bytes) -> str:
        parse, outcome = avro_parser(data.decode(errors="replace")), []
        for record in (b"", bytes(40), b"\x06ada" * 10):
            try:
                outcome.append(len(parse(record, 0)))
            except Reject as reject:
                outcome.append(str(reject)[:10])
        return str(outcome)

    return Target((json.dumps(AVRO_SCHEMA).encode(), b'["null", "string"]'), run, (SchemaError,))


def _file_target(corpus: list[str], load: Callable[[Path], Any], *refusals: type[Exception]) -> Target:
    """A target whose inputs are written to a file that is loaded."""
    path = Path(tempfile.mkdtemp(prefix="fuzz-")) / "file.yaml"

    def run(data: bytes) -> str:
        path.write_bytes(data)
        return str(load(path))[:40]

    return Target(tuple(text.encode() for text in corpus), run, refusals)


def _sections(path: Path) -> list[str]:
    """The keys of a file, each as a file of its own in YAML's flow style, which is parsed faster."""
    return [_flow(key, value) for key, value in parse_yaml(path.read_text(encoding="utf-8")).items()]


def _flow(key: str, value: Any) -> str:
    return f"{key}: {json.dumps(value)}\n"


def _without_comments(text: str) -> str:
    return "".join(line for line in text.splitlines(keepends=True) if not line.lstrip().startswith("#"))
