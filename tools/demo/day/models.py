"""The models of the demo's day: each is trained on the events before its time and entered into a registry."""

import io
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import yaml

from tools.console import note
from tools.demo.steps import train
from tools.stack.local_stack import StackError
from training import promote
from training.modeling.settings import Training
from training.simulation.clickstream import Clickstream
from training.simulation.traffic import HOUR_MS
from udfs.features.declaration_file import STANDARD

HISTORY_HOURS = 24  # that models learn from
SALT, CONTROL_SHARE, FIRST_SHARE, CHALLENGER_SHARE = "demo-day", 0.1, 0.05, 0.45
CHAMPION, CHALLENGER, AFTER_SHIFT = "yesterday", "this-morning", "after-the-shift"
RULE = {"any": ["cart_adds_30m >= 1", "checkouts_30m >= 1"]}

#: Without features that change in the course of any day: the hour, totals of a user, the countries that are awake.
STEADY_FEATURES = tuple(
    feature.name
    for feature in STANDARD.features
    if feature.group in ("window", "session", "context", "profile")
    and not feature.name.endswith("_24h")
    and feature.name not in ("local_hour", "local_weekday", "country")
)
TRAINING = Training(model="xgboost", features=STEADY_FEATURES, folds=2, repeats=0, rounds=100, prune=False, compare=())


class DemoModels:
    """A registry, and the simulated clicks to train from."""

    def __init__(self, directory: Path, stream: Clickstream):
        self.registry = directory / "registry"
        self._directory = directory
        self._stream = stream

    def begin(self, now_ms: int) -> None:
        """Train the first champion, and start it with a control group."""
        self._train(CHAMPION, now_ms - HISTORY_HOURS * HOUR_MS, now_ms)
        control = {"share": CONTROL_SHARE, "at_most": CONTROL_SHARE}
        rollout = self._directory / "rollout.yaml"
        rollout.write_text(yaml.safe_dump({"salt": SALT, "champion": CHAMPION, "control": control, "rule": RULE}))
        self._promote("apply", str(rollout), "--why", "first model")

    def retrain(self, version: str, since_ms: int, now_ms: int) -> None:
        """Train another model, and run it in shadow."""
        self._train(version, since_ms, now_ms)
        self._promote("shadow", version, "--why", "retrained")

    def start(self) -> None:
        shares = ("--share", str(FIRST_SHARE), "--at-most", str(CHALLENGER_SHARE))
        self._promote("start", CHALLENGER, *shares, "--why", "one hour in shadow")

    def ramp(self) -> None:
        self._promote("ramp", CHALLENGER, "--share", str(CHALLENGER_SHARE), "--why", "no KPI is worse")

    def _train(self, version: str, since_ms: int, now_ms: int) -> None:
        bundle = train(self._stream.between(since_ms, now_ms), TRAINING, version, self._directory / "models")
        self._promote("stage", str(bundle))

    def _promote(self, *arguments: str) -> None:
        output = io.StringIO()
        with redirect_stdout(output), redirect_stderr(output):
            code = promote.main([*arguments, "--registry", str(self.registry)])
        if code:
            raise StackError(output.getvalue().strip())
        note(f"promote {arguments[0]}: {output.getvalue().splitlines()[0]}")
