"""A backtest from the plan to the result: examples are prepared, policies made and replayed, decisions assessed."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import mkdtemp

import numpy as np

from training.backtesting.assessment import assess
from training.backtesting.plan import RULE, Options, Plan
from training.backtesting.replay import DecisionPolicy, Replayed, ReplayWindow, Tenure, replay, time_span
from training.backtesting.report import Backtest, time_text
from training.backtesting.schedule import ScheduledTraining, retrained
from training.data.archive import Arrived, find_parts, newest_arrival_ms
from training.data.preparation import Progress, prepare
from training.data.summary import Summary, warnings
from udfs.config.durations import duration_ms
from udfs.features.declaration import Declaration
from udfs.mapping.definition import MappingFile, load_mapping
from udfs.models.backends import build_engine
from udfs.models.bundle import Bundle
from udfs.rollout.rules import Rule, matches, rule_features


def run_backtest(options: Options, plan: Plan, step: Progress, note: Callable[[str], None]) -> Backtest:
    """Replay the clicks under all policies; `note` is called with warnings about the data.

    Raises ValueError if nothing can be replayed or trained.
    """
    options.out.mkdir(parents=True, exist_ok=True)
    workspace = Path(mkdtemp(prefix=".backtest-", dir=options.out))
    try:
        directories, summary, known_ms = _prepare(options, plan, workspace / "examples", step)
        for line in warnings(summary, options.clicks, options.profiles, None):
            note(line)
        window = ReplayWindow(options.from_ms, options.to_ms, known_ms, plan.label.horizon_ms)
        policies = [_model_policy(bundle, names, plan) for bundle, names in zip(plan.bundles, plan.columns)]
        trainings: list[ScheduledTraining] = []
        if options.retrain is not None:
            every_ms = duration_ms(options.retrain)
            progress = _named("trained", step)
            policy, trainings = retrained(directories, window, every_ms, plan.training, plan.label, progress)
            if not policy.tenures:
                raise ValueError(
                    f"--retrain {options.retrain}: no model could be trained: {trainings[-1].why}: give more "
                    "data, or a later --from"
                )
            policies.append(policy)
        if plan.rule is not None:
            policies.append(_rule_policy(plan.rule, plan.declaration))
        replayed = replay(directories, window, policies, _named("scored", step))
        if not replayed.events:
            raise ValueError(_nothing_to_replay(options, plan, directories, replayed, summary))
    finally:
        shutil.rmtree(workspace)
    return assess(options, plan, window, policies, trainings, replayed)


def _named(name: str, step: Progress) -> Callable[[int, int, int], None]:
    return lambda done, total, events: step(name, done, total, events)


def _prepare(options: Options, plan: Plan, directory: Path, step: Progress) -> tuple[list[Path], Summary, int]:
    """Prepared examples, counts of the data, and the end of what is known in ms, `--to` or earlier."""
    mappings: MappingFile | None = load_mapping(options.mapping) if options.mapping else None
    parts = find_parts(options.clicks, mappings)
    arrived, end_ms = None, None
    if all(part.is_archive for part in parts):
        end_ms = newest_arrival_ms(options.clicks)
        arrived = Arrived(0, options.to_ms)
    rows_from_ms, features = options.from_ms, _needed(plan)
    if options.retrain is not None:  # training rows come from before
        rows_from_ms, features = 0, tuple(dict.fromkeys((*plan.training.names, *features)))
    preparation = plan.training.preparation(
        plan.label,
        plan.declaration,
        features=features,
        arrived=arrived,
        rows_from_ms=rows_from_ms,
        keep_immature=True,
    )
    directories, summary = prepare(options.clicks, directory, preparation, options.profiles, mappings, step)
    return directories, summary, min(options.to_ms, summary.data_end_ms if end_ms is None else end_ms)


def _needed(plan: Plan) -> tuple[str, ...]:
    """The features that the models and the rule need, each once."""
    names = dict.fromkeys(name for names in plan.columns for name in names)
    return tuple(names | dict.fromkeys(rule_features(plan.rule) if plan.rule else ()))


def _model_policy(bundle: Bundle, names: tuple[str, ...], plan: Plan) -> DecisionPolicy:
    predict = build_engine(bundle, "native", plan.training.threads)
    return DecisionPolicy(bundle.manifest.version, "model", (Tenure(0, names, predict),))


def _rule_policy(rule: Rule, declaration: Declaration) -> DecisionPolicy:
    names = rule_features(rule)

    def predict(features: np.ndarray) -> np.ndarray:
        return matches(rule, names, features, declaration).astype(np.float32)

    return DecisionPolicy(RULE, "rule", (Tenure(0, names, predict),))


def _nothing_to_replay(
    options: Options, plan: Plan, directories: Sequence[Path], replayed: Replayed, summary: Summary
) -> str:
    stretch = f"from {time_text(options.from_ms)} to {time_text(options.to_ms)}"
    if replayed.immature:
        return (
            f"{options.clicks}: none of the {replayed.immature} events {stretch} had a known label by then: it takes "
            f"{plan.label.horizon}: choose an earlier --from or give later clicks"
        )
    first, last = time_span(directories) or (summary.first_ms, summary.last_ms)
    return (
        f"{options.clicks}: no event to score {stretch}: the clicks read are from "
        f"{time_text(min(first, summary.first_ms))} to {time_text(max(last, summary.last_ms))}; {plan.label} is "
        f"predicted for {', '.join(plan.label.scored_events)}"
    )
