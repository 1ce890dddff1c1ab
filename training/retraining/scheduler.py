"""Looking again and again whether to retrain, and what to do with the model that came of it."""

from collections.abc import Callable
from datetime import datetime, timedelta

from training.retraining.auto_ramp import consider, decoded
from training.retraining.lock import locked
from training.retraining.run_store import Run, newest_run, passed_runs
from training.retraining.settings import Recipe
from training.retraining.triggers import drift_trigger, in_progress, live_auc, quality_trigger
from udfs.config.durations import duration_ms
from udfs.contracts.outputs import DriftWindow, ModelQuality
from udfs.kafka.reading import ReadTopic
from udfs.rollout.registry import Registry

#: How far back topics are read, at least; and after what time a run that was refused or broke off is tried again.
LOOK_BACK, RETRY = timedelta(hours=6), timedelta(minutes=10)
METRIC_LOW = "test_roc_auc_low"


class Watch:
    """What is remembered between two looks. Tells a line when it says something else than the last one of its kind."""

    def __init__(
        self,
        recipe: Recipe,
        triggers: bool,
        retrain: Callable[[Recipe, str, Callable[[str], None]], Run],
        read: ReadTopic,
        tell: Callable[[str], None],
    ):
        self._recipe, self._triggers, self._retrain, self._read, self._tell = recipe, triggers, retrain, read, tell
        self._registry = Registry(recipe.settings.registry)
        self._not_before: dict[str, datetime] = {}
        self._last: dict[str, str] = {}

    def look(self, now: datetime) -> None:
        """One look. What goes wrong is told, and tried again at a later look."""
        for name, step in (("retraining", self._start), ("ramping", self._ramp)):
            try:
                step(now)
            except (ValueError, OSError) as error:
                self._not_before[name] = now + RETRY
                self._say(name, f"{name}: {' '.join(str(error).split())}")

    def _start(self, now: datetime) -> None:
        if now < self._not_before.get("retraining", now):
            return
        newest = newest_run(self._registry)
        if newest is not None and newest.finished is None:
            self._run(newest.trigger, now)
        elif self._is_due(newest, now):
            self._run(f"schedule: every {self._recipe.settings.every}", now)
        elif self._triggers:
            reason = self._reason(newest, now)
            if reason is not None:
                self._run(reason, now)

    def _run(self, trigger: str, now: datetime) -> None:
        self._tell(f"retraining: {trigger}")
        run = self._retrain(self._recipe, trigger, self._tell)
        self._say("retraining", f"run {run.run} {run.state}: {run.message}")
        if run.finished is None:
            self._not_before["retraining"] = now + RETRY

    def _is_due(self, newest: Run | None, now: datetime) -> bool:
        every = self._recipe.settings.every
        return every is not None and (newest is None or now - newest.started >= _duration(every))

    def _reason(self, newest: Run | None, now: datetime) -> str | None:
        """Why to retrain now, if so; tells when what is seen has changed."""
        registry, wanted = self._registry, self._recipe.settings.triggers
        rollout = registry.newest().rollout
        champion, bound = rollout.champion, registry.manifest(rollout.champion).metrics.get(METRIC_LOW, 0.0)
        since = now - max(LOOK_BACK, timedelta(minutes=2 * wanted.quality_minutes))
        topics = self._recipe.settings.topics
        windows = self._records(topics.drift, DriftWindow, since)
        quality = self._records(topics.model_quality, ModelQuality, since)
        drift = drift_trigger(windows, champion, wanted.drift_windows)
        found = live_auc(quality, champion, wanted.quality_minutes, wanted.quality_scores)
        reasons = [why for why in (drift, quality_trigger(found, bound, wanted.quality_minutes)) if why is not None]
        measured = [one for one in windows if one.model_version == champion]
        level = max(measured, key=lambda one: one.window_end).level if measured else "not measured"
        auc = "not measured" if found is None else "as its bundle tells" if found[0] >= bound else f"below {bound:.4f}"
        trying = in_progress(rollout, passed_runs(registry))
        status = f"{champion} serves: drift {level}, live AUC {auc}" + (f"; {trying} is being tried" if trying else "")
        self._say("watching", status)
        is_cooling = newest is not None and now - newest.finished < _duration(wanted.cool_down)
        return None if trying or is_cooling or not reasons else "; ".join(reasons)

    def _records(self, topic: str, kind: type, since: datetime) -> list:
        values = self._read(self._recipe.settings.kafka, topic, int(since.timestamp() * 1000))
        return decoded(values, kind, topic)

    def _ramp(self, now: datetime) -> None:
        settings = self._recipe.settings
        if not settings.ramping.auto or now < self._not_before.get("ramping", now):
            return
        self._not_before["ramping"] = now + _duration(settings.ramping.every)
        with locked(self._registry, duration_ms(settings.give_up)):
            decided = consider(self._registry, settings, self._recipe.kpis, now, self._read)
        if decided is not None:
            self._say("ramping", decided)

    def _say(self, about: str, line: str) -> None:
        if self._last.get(about) != line:
            self._last[about] = line
            self._tell(line)


def _duration(text: str) -> timedelta:
    return timedelta(milliseconds=duration_ms(text))
