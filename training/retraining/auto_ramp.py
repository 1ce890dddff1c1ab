"""Automatic ramps of retrained models, step by step: decided by policy, executed by the rollout service."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

import msgspec

from training.data.rows import SourceError
from training.experiments.comparison import Report
from training.experiments.sessions import read_topic_sessions
from training.retraining.run_store import RampRecord, Run, passed_runs, write_run
from training.retraining.settings import Retraining
from training.retraining.triggers import in_progress
from training.rollout import bandit
from training.rollout.commands import Change, MakeChampion, Ramp, Reallocate, Start, Stop
from training.rollout.guardrails import Act, GuardrailError, RampDecision, decide_shadow, decide_step
from training.rollout.ramp_step import held_since, sessions_since, step_report
from training.rollout.service import RolloutService
from training.rollout.shadow_quality import ShadowQuality, shadow_quality
from training.rollout.transitions import ChangeError
from udfs.config.durations import duration_ms
from udfs.contracts.outputs import Outcome, ShadowScores
from udfs.kafka.reading import ReadTopic
from udfs.measurement.kpis import Kpi
from udfs.rollout.experiments import read_entries
from udfs.rollout.plan import Rollout
from udfs.rollout.registry import Registry

BY = "retrain"
T = TypeVar("T")


def consider(
    registry: Registry, settings: Retraining, kpis: Mapping[str, Kpi], now: datetime, read: ReadTopic
) -> str | None:
    """Decide on the model that retraining has in shadow or as challenger, and execute the decision.

    Returns the decision in a line, None when there is no such model, or a bandit decides on it as challenger: see
    `reallocate`. The run's record has the decision. A start may
    override the comparison of holdouts, as the two models were compared on the same live clicks; the ledger records
    that. Raises RegistryError, SourceError, and what `RolloutService.execute` raises.
    """
    service = RolloutService(registry, settings.admission)
    snapshot, runs = service.snapshot(), passed_runs(registry)
    version = in_progress(snapshot.rollout, runs)
    if version is None or (snapshot.rollout.bandit is not None and version not in snapshot.rollout.shadows):
        return None
    since = held_since(registry, version)
    elapsed_ms = int((now - since).total_seconds() * 1000)
    trial = _Trial(registry, snapshot.rollout, version, since, elapsed_ms, settings, kpis, read)
    decision, report = trial.decide()
    number = None
    if (change := _change(version, decision.act, settings.ramping.at_most)) is not None:
        entry, _ = service.execute(
            change,
            by=BY,
            why=decision.why,
            force=isinstance(change, Start),
            report=None if report is None else lambda _version: report,
            snapshot=snapshot,
        )
        number = entry.number
    _record(registry, runs[version], RampRecord(now, decision.act, decision.why, number))
    return f"{version}: {decision.act}: {decision.why}"


def reallocate(
    registry: Registry, settings: Retraining, kpis: Mapping[str, Kpi], now: datetime, read: ReadTopic
) -> str | None:
    """Let the bandit of the rollout give new shares, once it is time to, and return them, or why they stay, in a line.

    None without a bandit or a challenger, and before it is time. Raises like `consider`.
    """
    service = RolloutService(registry, settings.admission)
    snapshot = service.snapshot()
    if snapshot.rollout.bandit is None or not snapshot.rollout.challengers:
        return None
    entries = read_entries(registry)
    if now < bandit.next_look(entries):
        return None
    try:
        since = bandit.sessions_since(entries)
        sessions = read_topic_sessions(settings.kafka, settings.topics.sessions, since, read)
        found = bandit.look(entries, sessions, kpis)
    except ChangeError as error:
        return f"bandit: {error}"
    why = "; ".join(f"{arm.version} best with {arm.probability:.1%}" for arm in found.arms)
    service.execute(Reallocate(found.shares, bandit.salt(snapshot.number)), by=BY, why=why, snapshot=snapshot)
    shares = ", ".join(f"{arm.version} {arm.new_share:.2%}" for arm in found.arms)
    return f"bandit: {why}: new shares {shares}"


def _change(version: str, act: Act, at_most: float) -> Change | None:
    """The change that an act stands for; None for waiting."""
    match act:
        case "start":
            return Start(version, at_most)
        case "ramp":
            return Ramp(version)
        case "champion":
            return MakeChampion(version)
        case "stop":
            return Stop(version)
    return None


def _record(registry: Registry, run: Run, decision: RampRecord) -> None:
    """Add a decision to the run's record; of waiting, only the first in a row."""
    if decision.act != "wait" or not run.decisions or run.decisions[-1].act != "wait":
        write_run(registry, msgspec.structs.replace(run, decisions=(*run.decisions, decision)))


@dataclass(frozen=True)
class _Trial:
    """A shadow or challenger, the time that it has had its role and share, and the settings to judge it by."""

    registry: Registry
    rollout: Rollout
    version: str
    since: datetime
    elapsed_ms: int
    settings: Retraining
    kpis: Mapping[str, Kpi]
    read: ReadTopic

    def decide(self) -> tuple[RampDecision, Report | None]:
        """Decide on the model; for a challenger, also return the report that the decision is by, if there is one."""
        if self.version in self.rollout.shadows:
            return self._decide_shadow(), None
        try:
            since = sessions_since(self.registry, self.version)
            sessions = read_topic_sessions(self.settings.kafka, self.settings.topics.sessions, since, self.read)
            report = step_report(self.registry, self.version, sessions, self.kpis)
            return self._decide_step(report), report
        except GuardrailError as error:
            return RampDecision("wait", str(error)), None

    def _decide_shadow(self) -> RampDecision:
        gates, shadow_for_ms = self.settings.gates, duration_ms(self.settings.ramping.shadow_for)
        quality = self._live_quality() if self.elapsed_ms >= shadow_for_ms else None
        return decide_shadow(quality, self.elapsed_ms, shadow_for_ms, gates.margin, gates.positive_users)

    def _live_quality(self) -> ShadowQuality | None:
        topics = self.settings.topics
        outcomes = records_since(self.settings, topics.outcomes, Outcome, self.since, self.read)
        shadow_scores = records_since(self.settings, topics.shadow_scores, ShadowScores, self.since, self.read)
        return shadow_quality(outcomes, shadow_scores, self.version, self.rollout.champion)

    def _decide_step(self, report: Report) -> RampDecision:
        challenger = next(part for part in self.rollout.challengers if part.version == self.version)
        is_last = challenger.share >= challenger.at_most
        return decide_step(report, self.elapsed_ms, duration_ms(self.settings.ramping.step_for), is_last)


def records_since(settings: Retraining, topic: str, kind: type[T], since: datetime, read: ReadTopic) -> list[T]:
    """The records of a topic since a time. Raises SourceError naming the topic for one that does not fit."""
    decode = msgspec.json.Decoder(kind).decode
    try:
        return [decode(value) for value in read(settings.kafka, topic, int(since.timestamp() * 1000))]
    except msgspec.DecodeError as error:
        raise SourceError(f"topic {topic}: {error}") from None
