"""One retraining: prepare, train, evaluate against the champion, pass the gates, enter in shadow. It survives a crash.

What a step has finished is kept in the work directory until the run has come to its end, and the record in the registry
says how far the run has come; the next start goes on from there.
"""

import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path

import msgspec
from msgspec.structs import replace

from training.bundles.trainer import train_model
from training.bundles.writer import write_bundle
from training.data.archive import Arrived, newest_arrival_ms
from training.data.examples import Examples, load_examples, share_that_fits
from training.data.prepare import Preparation, prepare
from training.data.split import split_at
from training.data.summary import overview, warnings
from training.reporting.recommendation import RecommendationError, read_recommendation
from training.reporting.report import METRICS_FILE, REPORT_FILE, with_report
from training.retraining.auto_ramp import BY
from training.retraining.gates import ModelComparison, compare_models, failed, judge
from training.retraining.lock import Lock, LockError, locked
from training.retraining.run_store import Run, Window, newest_run, passed_runs, read_runs, run_name, write_run
from training.retraining.settings import DataSettings, Recipe, RetrainingError
from training.retraining.triggers import in_progress
from training.rollout.commands import AddShadow
from training.rollout.ledger import upload_bundle
from training.rollout.service import RolloutService
from udfs.config.durations import duration_ms
from udfs.measurement.labels import Label
from udfs.models.bundle import Bundle, load_bundle
from udfs.rollout.registry import Registry, RegistryError

CLICKS, PROFILES = "topic=clicks", "topic=profiles"
PREPARED_FILE = "prepared.json"


class _Prepared(msgspec.Struct):
    """What the directory of examples has, written when all of it is there."""

    directories: list[str]
    examples: int
    positives: int


def freeze(data: DataSettings, label: Label) -> Window:
    """The time range of a run, by the newest click that the archive has now. Raises SourceError."""
    end = newest_arrival_ms(Path(data.archive) / CLICKS)
    matured = end - label.horizon_ms
    start = max(0, matured - duration_ms(data.history))
    return Window(
        context=max(0, start - duration_ms(data.context)),
        start=start,
        newest=max(0, matured - duration_ms(data.newest)),
        matured=matured,
        end=end,
    )


def retrain(recipe: Recipe, trigger: str, tell: Callable[[str], None] = print) -> Run:
    """Go on with the run that has not finished, or do a new one; returns its record, which says what came of it.

    Raises LockError when another process retrains; RetrainingError, RegistryError or SourceError when no run can begin.
    """
    registry = Registry(recipe.settings.registry)
    with locked(registry, duration_ms(recipe.settings.give_up)) as lock:
        run = _unfinished(registry, recipe, tell) or _begin(registry, recipe, trigger)
        work = _Work(registry, recipe, run, lock, tell)
        try:
            work.run_all()
        except LockError:
            raise
        except (RegistryError, OSError) as error:  # may pass: the next start goes on
            work.record(state="error", message=_line(error))
        except ValueError as error:
            work.finish("refused", _line(error))
        return work.run


def _unfinished(registry: Registry, recipe: Recipe, tell: Callable[[str], None]) -> Run | None:
    """The run to go on with. One that is too old, or of other settings, is closed."""
    run = newest_run(registry)
    if run is None or run.finished is not None:
        return None
    limit = timedelta(milliseconds=duration_ms(recipe.settings.give_up))
    if run.settings != recipe.digest:
        why = "the settings have changed since"
    elif datetime.now(UTC) - run.started > limit:
        why = f"it has not finished within {recipe.settings.give_up}"
    else:
        tell(f"going on with run {run.run}, which had come to {run.state}")
        return run
    write_run(registry, replace(run, state="error", message=f"given up: {why}", finished=datetime.now(UTC)))
    shutil.rmtree(Path(recipe.settings.work) / run.run, ignore_errors=True)
    tell(f"run {run.run} is given up: {why}")
    return None


def _begin(registry: Registry, recipe: Recipe, trigger: str) -> Run:
    rollout = registry.newest().rollout
    if trying := in_progress(rollout, passed_runs(registry)):
        raise RetrainingError(
            f"{trying} of an earlier run is still in shadow or a challenger: one at a time; promote or stop it first"
        )
    window = freeze(recipe.settings.data, recipe.label)
    for run in read_runs(registry):
        is_same = (run.window.end, run.settings, run.champion) == (window.end, recipe.digest, rollout.champion)
        if is_same and run.state != "error":
            raise RetrainingError(f"no click has come since run {run.run}, and the settings are the same")
    started = datetime.now(UTC)
    run = Run(
        run=run_name(started),
        started=started,
        trigger=trigger,
        state="preparing",
        window=window,
        champion=rollout.champion,
        settings=recipe.digest,
    )
    write_run(registry, run)
    return run


class _Work:
    """A run under way. Each step records that it begins; a step whose result is there already is passed over."""

    def __init__(self, registry: Registry, recipe: Recipe, run: Run, lock: Lock, tell: Callable[[str], None]):
        self.run = run
        self._registry, self._recipe, self._lock, self._tell = registry, recipe, lock, tell
        self._directory = Path(recipe.settings.work) / run.run

    def run_all(self) -> None:
        champion = self._champion()
        self.record(state="preparing", message="")
        self._prepare()
        self.record(state="training")
        candidate = self._train()
        self.record(state="evaluating", version=candidate.manifest.version)
        compared = compare_models(self._newest_rows(), candidate, champion)
        alarms = read_recommendation(self._bundle / METRICS_FILE).alarms
        gates = judge(compared, candidate, champion.manifest, alarms, self._recipe.settings.gates)
        if missed := failed(gates):
            self.record(gates=gates)
            self.finish("failed", f"{missed}. The report is {self._bundle / REPORT_FILE}")
            return
        self.record(state="passed", gates=gates)
        number = self._enter(candidate, compared)
        self.record(ledger_entry=number)
        self.finish("passed", f"{candidate.manifest.version} is in shadow by entry {number}: {compared}")

    def record(self, **changes: object) -> None:
        """Raises LockError when another process has taken over."""
        self._lock.check()
        self.run = replace(self.run, **changes)
        write_run(self._registry, self.run)

    def finish(self, state: str, message: str) -> None:
        self.record(state=state, message=message, finished=datetime.now(UTC))
        shutil.rmtree(self._directory / "examples", ignore_errors=True)

    @property
    def _bundle(self) -> Path:
        return self._directory / "bundle"

    def _champion(self) -> Bundle:
        champion = self._registry.bundle(self.run.champion, self._recipe.training.history_length)
        if not champion.manifest.label.is_same_as(self._recipe.label):
            raise RetrainingError(
                f'the label is "{self._recipe.label}", the champion predicts "{champion.manifest.label}": '
                "no metric compares the two"
            )
        return champion

    def _prepare(self) -> None:
        directory, window, recipe = self._directory / "examples", self.run.window, self._recipe
        if (directory / PREPARED_FILE).exists():
            return
        shutil.rmtree(directory, ignore_errors=True)
        archive = Path(recipe.settings.data.archive)
        clicks, profiles = archive / CLICKS, archive / PROFILES
        preparation = Preparation(
            recipe.label,
            history_length=recipe.training.history_length,
            workers=recipe.training.threads,
            arrived=Arrived(window.context, window.end),
            rows_from_ms=window.start,
        )
        profiles = profiles if profiles.exists() else None
        directories, found = prepare(clicks, directory, preparation, profiles)
        for line in (overview(found), *warnings(found, clicks, profiles, None)):
            self._tell(line)
        prepared = _Prepared([one.name for one in directories], found.examples, found.positives)
        unfinished = directory / f".{PREPARED_FILE}"
        unfinished.write_bytes(msgspec.json.encode(prepared))
        unfinished.rename(directory / PREPARED_FILE)

    @cached_property
    def _examples(self) -> Examples:
        directory, training = self._directory / "examples", self._recipe.training
        found = msgspec.json.decode((directory / PREPARED_FILE).read_bytes(), type=_Prepared)
        share = share_that_fits(found.examples, found.positives, training.negative_share, training.max_rows)
        return load_examples([directory / name for name in found.directories], share, training.seed)

    def _newest_rows(self) -> Examples:
        _, rows = split_at(self._examples, self.run.window.newest, self._recipe.label.horizon_ms)
        return self._examples.take(rows)

    def _train(self) -> Bundle:
        self._discard_outdated_bundle()
        if not self._bundle.exists():
            trained = train_model(
                self._examples,
                self._recipe.training,
                self._recipe.label,
                report=self._tell,
                holdout_from_ms=self.run.window.newest,
            )
            trained = with_report(trained)
            write_bundle(self._bundle, trained.manifest, trained.files)
        return load_bundle(self._bundle, self._recipe.training.history_length)

    def _discard_outdated_bundle(self) -> None:
        """Remove a bundle that an earlier version of this code left when it crashed: its report can't be read."""
        if not self._bundle.exists():
            return
        try:
            read_recommendation(self._bundle / METRICS_FILE)
        except RecommendationError as error:
            self._tell(f"training again: {_line(error)}")
            shutil.rmtree(self._bundle)

    def _enter(self, candidate: Bundle, compared: ModelComparison) -> int:
        """The ledger's entry that lets the candidate score in shadow, written now or before a crash."""
        change, registry = AddShadow(candidate.manifest.version), self._registry
        upload_bundle(registry, self._bundle, candidate)
        for number in registry.numbers():
            entry = registry.entry(number)
            if entry is not None and entry.by == BY and entry.command == change.command:
                return number
        service = RolloutService(registry)
        snapshot = service.snapshot()
        champion = snapshot.rollout.champion
        if champion != self.run.champion:
            raise RetrainingError(f"{champion} is the champion now, and the run compared with {self.run.champion}")
        self._lock.check()
        entry, _ = service.execute(change, by=BY, why=f"{self.run.trigger}; {compared}", snapshot=snapshot)
        return entry.number


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
