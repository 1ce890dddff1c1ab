"""What becomes of a model that retraining has entered: decided by policy, done through the ledger."""

from collections.abc import Iterable
from datetime import datetime
from typing import TypeVar

import msgspec

from training.changes import ramp, start, stop, to_champion
from training.entering import enter
from training.experiment import KPIS_FILE
from training.guardrails import GuardrailError, Verdict, decide_shadow, decide_step, guardrails_at
from training.ledger import next_entry
from training.records import SourceError
from training.retraining import Retraining
from training.runs import Decision, passed_runs, write_run
from training.shadow_quality import Outcome, ShadowScore, shadow_quality
from training.step import ReadTopic, held_since, step_report, topic_sessions
from training.triggers import in_progress
from udfs.durations import duration_ms
from udfs.kpis import load_kpis
from udfs.registry import Registry
from udfs.rollout import Rollout

BY = "retrain"
T = TypeVar("T")


def consider(registry: Registry, settings: Retraining, now: datetime, read: ReadTopic) -> str | None:
    """Decide on the model that retraining has in shadow or as challenger, do it, and tell; None when there is none.

    The run's record has the decision. A start may override the comparison of holdouts, as the two models were compared
    on the same live clicks; the ledger then says so. Raises RegistryError, SourceError, and what a change refuses.
    """
    number = next_entry(registry)  # before the rollout is read: a change in between is noticed
    rollout = registry.newest().rollout
    runs = passed_runs(registry)
    version = in_progress(rollout, runs)
    if version is None:
        return None
    since = held_since(registry, version)
    elapsed_ms = int((now - since).total_seconds() * 1000)
    if version in rollout.shadows:
        verdict = _of_shadow(rollout, version, since, elapsed_ms, settings, read)
    else:
        verdict = _of_step(rollout, version, since, elapsed_ms, settings, read)
    written = None
    if verdict.act != "wait":
        new, command = _change(rollout, version, verdict.act, settings.ramping.at_most)
        entry, _ = enter(registry, number, rollout, new, by=BY, command=command, why=verdict.why, force=True)
        written = entry.number
    run = runs[version]
    if verdict.act != "wait" or not run.decisions or run.decisions[-1].act != "wait":
        decisions = (*run.decisions, Decision(now, verdict.act, verdict.why, written))
        write_run(registry, msgspec.structs.replace(run, decisions=decisions))
    return f"{version}: {verdict.act}: {verdict.why}"


def _of_shadow(
    rollout: Rollout, version: str, since: datetime, elapsed_ms: int, settings: Retraining, read: ReadTopic
) -> Verdict:
    shadow_for_ms, quality = duration_ms(settings.ramping.shadow_for), None
    if elapsed_ms >= shadow_for_ms:
        since_ms = int(since.timestamp() * 1000)
        quality = shadow_quality(
            decoded(read(settings.kafka, settings.topics.outcomes, since_ms), Outcome, settings.topics.outcomes),
            decoded(
                read(settings.kafka, settings.topics.shadow_scores, since_ms),
                ShadowScore,
                settings.topics.shadow_scores,
            ),
            version,
            rollout.champion,
        )
    wanted = settings.gates
    return decide_shadow(quality, elapsed_ms, shadow_for_ms, wanted.margin, wanted.positive_users)


def _of_step(
    rollout: Rollout, version: str, since: datetime, elapsed_ms: int, settings: Retraining, read: ReadTopic
) -> Verdict:
    kpis = load_kpis(KPIS_FILE)
    challenger = next(part for part in rollout.challengers if part.version == version)
    try:
        report = step_report(rollout, version, since, topic_sessions(settings, since, read), kpis)
    except GuardrailError as error:
        return Verdict("wait", str(error))
    return decide_step(
        report,
        kpis,
        guardrails_at(rollout, challenger.share),
        elapsed_ms,
        duration_ms(settings.ramping.step_for),
        is_last=challenger.share >= challenger.at_most,
    )


def _change(rollout: Rollout, version: str, act: str, at_most: float) -> tuple[Rollout, tuple[str, ...]]:
    """The rollout after an act, and the command of training.promote that does the same."""
    if act == "start":
        return start(rollout, version, None, at_most), ("start", version, "--at-most", f"{at_most:g}")
    if act == "ramp":
        return ramp(rollout, version, None), ("ramp", version)
    if act == "champion":
        return to_champion(rollout, version), ("ramp", version, "--to-champion")
    return stop(rollout, version), ("stop", version)


def decoded(values: Iterable[bytes], kind: type[T], topic: str) -> list[T]:
    """The records of a topic. Raises SourceError naming it for one that does not fit."""
    decode = msgspec.json.Decoder(kind).decode
    try:
        return [decode(value) for value in values]
    except msgspec.DecodeError as error:
        raise SourceError(f"topic {topic}: {error}") from None
