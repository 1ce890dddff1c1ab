"""One retraining: prepare, train, evaluate against the champion, pass the gates, enter in shadow. It survives a crash.

The results of each step stay in the work directory until the run ends, and the record in the registry has the state of
the run; the next start resumes from there.
"""

import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path

import msgspec
from msgspec.structs import replace

from training.bundles.signing import load_signing_key, sign_bundle
from training.bundles.trainer import TrainedModel, train_model
from training.bundles.writer import write_bundle
from training.data.archive import Arrived, newest_arrival_ms
from training.data.downsampling import share_that_fits
from training.data.examples import Examples, load_examples
from training.data.preparation import prepare, refuse_without_positives
from training.data.split import split_at
from training.data.summary import overview, warnings
from training.evaluation.champion import compare_with_champion
from training.reporting.facts import Background
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
from udfs.config.text import one_line
from udfs.features.declaration import merged
from udfs.measurement.labels import Label
from udfs.models.bundle import Bundle, directory_files, load_bundle
from udfs.rollout.registry import Registry, RegistryError

CLICKS, PROFILES = "topic=clicks", "topic=profiles"
PREPARED_FILE = "prepared.json"


class _Prepared(msgspec.Struct):
    """The contents of the directory of examples, written when it is complete."""

    directories: list[str]
    examples: int
    positives: int
    described: tuple[str, ...] = ()
    warnings: tuple[str, ...] | None = None  # not known where an earlier release has written the file


def freeze(data: DataSettings, label: Label) -> Window:
    """Freeze the time range of a run, by the newest click in the archive. Raises SourceError."""
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


def retrain(recipe: Recipe, trigger: str, log: Callable[[str], None] = print) -> Run:
    """Resume the unfinished run or start a new one; returns its record, with the result.

    Raises LockError when another process retrains; RetrainingError, RegistryError or SourceError when no run can begin.
    """
    registry = Registry(recipe.settings.registry, recipe.settings.admission.trusted_keys)
    with locked(registry, duration_ms(recipe.settings.give_up)) as lock:
        run = _unfinished(registry, recipe, log) or _begin(registry, recipe, trigger)
        work = _Work(registry, recipe, run, lock, log)
        try:
            work.run_all()
        except LockError:
            raise
        except (RegistryError, OSError) as error:  # may be temporary: the next start resumes
            work.record(state="error", message=one_line(error))
        except ValueError as error:
            work.finish("refused", one_line(error))
        return work.run


def _unfinished(registry: Registry, recipe: Recipe, log: Callable[[str], None]) -> Run | None:
    """The run to resume. One that is too old, or has other settings, is closed."""
    run = newest_run(registry)
    if run is None or run.finished is not None:
        return None
    limit = timedelta(milliseconds=duration_ms(recipe.settings.give_up))
    if run.settings != recipe.digest:
        why = "the settings have changed since"
    elif datetime.now(UTC) - run.started > limit:
        why = f"it has not finished within {recipe.settings.give_up}"
    else:
        log(f"going on with run {run.run}, which had come to {run.state}")
        return run
    write_run(registry, replace(run, state="error", message=f"given up: {why}", finished=datetime.now(UTC)))
    shutil.rmtree(Path(recipe.settings.work) / run.run, ignore_errors=True)
    log(f"run {run.run} is given up: {why}")
    return None


def _begin(registry: Registry, recipe: Recipe, trigger: str) -> Run:
    rollout = registry.newest().rollout
    if in_trial := in_progress(rollout, passed_runs(registry)):
        raise RetrainingError(
            f"{in_trial} of an earlier run is still in shadow or a challenger: one at a time; promote or stop it first"
        )
    window = freeze(recipe.settings.data, recipe.label)
    for run in read_runs(registry):
        is_same = (run.window.end, run.settings, run.champion) == (window.end, recipe.digest, rollout.champion)
        if is_same and run.state != "error":
            raise RetrainingError(f"no clicks have arrived since run {run.run}, and the settings are the same")
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
    """A run in progress. Each step records its start; a step whose result exists already is skipped."""

    def __init__(self, registry: Registry, recipe: Recipe, run: Run, lock: Lock, log: Callable[[str], None]):
        self.run = run
        self._registry, self._recipe, self._lock, self._log = registry, recipe, lock, log
        self._directory = Path(recipe.settings.work) / run.run

    def run_all(self) -> None:
        champion = self._champion()
        self.record(state="preparing", message="")
        self._prepare(champion)
        self.record(state="training")
        candidate = self._train(champion)
        self.record(state="evaluating", version=candidate.manifest.version)
        positive_users = self._recipe.settings.gates.positive_users
        compared = compare_models(self._newest_rows(), self._measured(candidate), champion, positive_users)
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
        """Update the record of the run. Raises LockError when another process has taken over."""
        self._lock.check()
        self.run = replace(self.run, **changes)
        write_run(self._registry, self.run)

    def finish(self, state: str, message: str) -> None:
        self.record(state=state, message=message, finished=datetime.now(UTC))
        shutil.rmtree(self._directory / "examples", ignore_errors=True)

    @property
    def _bundle(self) -> Path:
        return self._directory / "bundle"

    @property
    def _measured_bundle(self) -> Path:
        return self._directory / "measured"

    def _champion(self) -> Bundle:
        champion = self._registry.bundle(self.run.champion, self._recipe.training.history_length)
        if not champion.manifest.label.is_same_as(self._recipe.label):
            raise RetrainingError(
                f'the label is "{self._recipe.label}", the champion predicts "{champion.manifest.label}": '
                "no metric compares the two"
            )
        return champion

    def _prepare(self, champion: Bundle) -> None:
        """Examples with all features of the settings, and those of the champion."""
        directory, window, recipe = self._directory / "examples", self.run.window, self._recipe
        if (directory / PREPARED_FILE).exists():
            return
        shutil.rmtree(directory, ignore_errors=True)
        archive = Path(recipe.settings.data.archive)
        clicks, profiles = archive / CLICKS, archive / PROFILES
        declared = recipe.training.declared
        if lacking := declared.layout.without(champion.declaration.layout):
            raise RetrainingError(f"key declaration: the champion needs {lacking[0]}: keep it in the declaration")
        preparation = recipe.training.preparation(
            recipe.label,
            merged(declared, [champion.declaration])[0],
            arrived=Arrived(window.context, window.end),
            rows_from_ms=window.start,
        )
        profiles = profiles if profiles.exists() else None
        directories, summary = prepare(clicks, directory, preparation, profiles)
        refuse_without_positives(clicks, recipe.label, summary)
        for line in (overview(summary), *warnings(summary, clicks, profiles, None)):
            self._log(line)
        problems = warnings(summary, Path(CLICKS), profiles and Path(PROFILES), None)
        prepared = _Prepared(
            [path.name for path in directories],
            summary.examples,
            summary.positives,
            tuple(overview(summary).splitlines()),
            tuple(problems),
        )
        unfinished = directory / f".{PREPARED_FILE}"
        unfinished.write_bytes(msgspec.json.encode(prepared))
        unfinished.rename(directory / PREPARED_FILE)

    @cached_property
    def _prepared(self) -> _Prepared:
        return msgspec.json.decode((self._directory / "examples" / PREPARED_FILE).read_bytes(), type=_Prepared)

    @cached_property
    def _examples(self) -> Examples:
        directory, training, prepared = self._directory / "examples", self._recipe.training, self._prepared
        share = share_that_fits(prepared.examples, prepared.positives, training.negative_share, training.max_rows)
        return load_examples([directory / name for name in prepared.directories], share, training.seed)

    def _newest_rows(self) -> Examples:
        _, rows = split_at(self._examples, self.run.window.newest, self._recipe.label.horizon_ms)
        return self._examples.take(rows)

    def _train(self, champion: Bundle) -> Bundle:
        self._discard_outdated_bundle()
        if not self._bundle.exists():
            trained = train_model(
                self._examples,
                self._recipe.training,
                self._recipe.label,
                log=self._log,
                holdout_from_ms=self.run.window.newest,
            )
            shutil.rmtree(self._measured_bundle, ignore_errors=True)
            if trained.measured is not None:  # first: where there is a bundle, this step is finished
                write_bundle(self._measured_bundle, trained.measured.manifest, trained.measured.files)
            trained = with_report(trained, self._background(trained, champion))
            write_bundle(self._bundle, trained.manifest, trained.files)
        return load_bundle(self._bundle, self._recipe.training.history_length)

    def _background(self, trained: TrainedModel, champion: Bundle) -> Background:
        evaluation, prepared = trained.evaluation, self._prepared
        compared = compare_with_champion(
            evaluation.holdout,
            evaluation.probability,
            self._recipe.training.declared,
            champion,
            self._recipe.settings.gates.positive_users,
        )
        return Background(prepared.described, prepared.warnings, compared)

    def _measured(self, candidate: Bundle) -> Bundle:
        """The candidate as it was before it was fitted to the newest rows, too: those on which it is compared."""
        if not self._measured_bundle.exists():
            return candidate
        return load_bundle(self._measured_bundle, self._recipe.training.history_length)

    def _discard_outdated_bundle(self) -> None:
        """Remove a bundle whose report can't be read, left by a crash of an earlier version of this code."""
        if not self._bundle.exists():
            return
        try:
            read_recommendation(self._bundle / METRICS_FILE)
        except RecommendationError as error:
            self._log(f"training again: {one_line(error)}")
            shutil.rmtree(self._bundle)

    def _enter(self, candidate: Bundle, compared: ModelComparison) -> int:
        """Enter the candidate in shadow; returns the number of the ledger entry, written now or before a crash."""
        change, registry = AddShadow(candidate.manifest.version), self._registry
        if (key := self._recipe.settings.signing_key) is not None:
            sign_bundle(self._bundle, load_signing_key(Path(key)))
        upload_bundle(registry, directory_files(self._bundle, registry.trusted_keys))
        for number in registry.numbers():
            entry = registry.entry(number)
            if entry is not None and entry.by == BY and entry.command == change.command:
                return number
        service = RolloutService(registry, self._recipe.settings.admission)
        snapshot = service.snapshot()
        champion = snapshot.rollout.champion
        if champion != self.run.champion:
            raise RetrainingError(f"{champion} is the champion now, and the run compared with {self.run.champion}")
        self._lock.check()
        entry, _ = service.execute(change, by=BY, why=f"{self.run.trigger}; {compared}", snapshot=snapshot)
        return entry.number
