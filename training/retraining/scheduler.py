"""Scheduler of retraining: polls triggers and schedule, and ramps the model of the last run."""

from collections.abc import Callable
from datetime import datetime, timedelta

from training.retraining.auto_ramp import consider, reallocate, records_since
from training.retraining.lock import locked
from training.retraining.run_store import Run, newest_run, passed_runs
from training.retraining.settings import Recipe
from training.retraining.triggers import drift_trigger, in_progress, live_auc, quality_trigger
from training.rollout.admission import METRIC
from udfs.config.durations import duration_ms
from udfs.config.text import one_line
from udfs.contracts.outputs import DriftWindow, ModelQuality
from udfs.kafka.reading import ReadTopic
from udfs.rollout.registry import Registry

#: Minimum time that topics are read back; delay before a run that was refused or interrupted is tried again.
LOOK_BACK, RETRY = timedelta(hours=6), timedelta(minutes=10)


class Watch:
    """The state between two polls. Logs a line only if it differs from the last one on the same subject."""

    def __init__(
        self,
        recipe: Recipe,
        triggers: bool,
        retrain: Callable[[Recipe, str, Callable[[str], None]], Run],
        read: ReadTopic,
        log: Callable[[str], None],
    ):
        self._recipe, self._triggers, self._retrain, self._read, self._log = recipe, triggers, retrain, read, log
        self._registry = Registry(recipe.settings.registry, recipe.settings.admission.trusted_keys)
        self._not_before: dict[str, datetime] = {}
        self._last: dict[str, str] = {}

    def look(self, now: datetime) -> None:
        """Poll once. Errors are logged, and the step is tried again at a later poll."""
        for name, step in (("retraining", self._start), ("ramping", self._ramp)):
            try:
                step(now)
            except (ValueError, OSError) as error:
                self._not_before[name] = now + RETRY
                self._log_change(name, f"{name}: {one_line(error)}")

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
        self._log(f"retraining: {trigger}")
        run = self._retrain(self._recipe, trigger, self._log)
        self._log_change("retraining", f"run {run.run} {run.state}: {run.message}")
        if run.finished is None:
            self._not_before["retraining"] = now + RETRY

    def _is_due(self, newest: Run | None, now: datetime) -> bool:
        every = self._recipe.settings.every
        return every is not None and (newest is None or now - newest.started >= _duration(every))

    def _reason(self, newest: Run | None, now: datetime) -> str | None:
        """The reason to retrain now, or None; logs the status when it has changed."""
        registry, triggers = self._registry, self._recipe.settings.triggers
        rollout = registry.newest().rollout
        champion, bound = rollout.champion, registry.manifest(rollout.champion).metrics.get(f"{METRIC}_low", 0.0)
        since = now - max(LOOK_BACK, timedelta(minutes=2 * triggers.quality_minutes))
        settings = self._recipe.settings
        windows = records_since(settings, settings.topics.drift, DriftWindow, since, self._read)
        quality = records_since(settings, settings.topics.model_quality, ModelQuality, since, self._read)
        drift = drift_trigger(windows, champion, triggers.drift_windows)
        live = live_auc(quality, champion, triggers.quality_minutes, triggers.quality_scores)
        reasons = [why for why in (drift, quality_trigger(live, bound, triggers.quality_minutes)) if why is not None]
        measured = [window for window in windows if window.model_version == champion]
        level = max(measured, key=lambda window: window.window_end).level if measured else "not measured"
        auc = "not measured" if live is None else "as its bundle tells" if live[0] >= bound else f"below {bound:.4f}"
        in_trial = in_progress(rollout, passed_runs(registry))
        trial = f"; {in_trial} is being tried" if in_trial else ""
        status = f"{champion} serves: drift {level}, live AUC {auc}{trial}"
        self._log_change("watching", status)
        is_cooling = newest is not None and now - newest.finished < _duration(triggers.cool_down)
        return None if in_trial or is_cooling or not reasons else "; ".join(reasons)

    def _ramp(self, now: datetime) -> None:
        settings = self._recipe.settings
        if not settings.ramping.auto or now < self._not_before.get("ramping", now):
            return
        self._not_before["ramping"] = now + _duration(settings.ramping.every)
        with locked(self._registry, duration_ms(settings.give_up)):
            for subject, decide in (("ramping", consider), ("reallocation", reallocate)):
                decision = decide(self._registry, settings, self._recipe.kpis, now, self._read)
                if decision is not None:
                    self._log_change(subject, decision)

    def _log_change(self, subject: str, line: str) -> None:
        if self._last.get(subject) != line:
            self._last[subject] = line
            self._log(line)


def _duration(text: str) -> timedelta:
    return timedelta(milliseconds=duration_ms(text))
