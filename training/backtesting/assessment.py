"""What the policies of a backtest earned, and how they compare: from replayed events to the result that is reported."""

from collections.abc import Iterator, Sequence

import numpy as np

from training.backtesting.decisions import break_even, threshold_of_share
from training.backtesting.earnings import Prices, compare, evaluate
from training.backtesting.leakage import leak
from training.backtesting.ledger import DAY_MS, ActionLedger, ledger_of
from training.backtesting.plan import AS_THE_RULE, RULE, Options, Plan
from training.backtesting.replay import DecisionPolicy, Replayed, ReplayWindow
from training.backtesting.report import Backtest, PolicyResult
from training.backtesting.schedule import ScheduledTraining
from training.data.intake import counted
from training.data.summary import RELIABLE_USERS
from training.evaluation.rule_baseline import describe_rule
from training.modeling.metrics import Estimate
from udfs.config.durations import duration_ms
from udfs.measurement.effects import LEAST_USERS


def assess(
    options: Options,
    plan: Plan,
    window: ReplayWindow,
    policies: Sequence[DecisionPolicy],
    trainings: Sequence[ScheduledTraining],
    replayed: Replayed,
) -> Backtest:
    """Let the policies act by their thresholds, and compare what they earned."""
    rule_share = None if plan.rule is None else float(np.mean(replayed.scores(RULE)))
    thresholds = [_decision(policy, options, plan, replayed, rule_share) for policy in policies]
    quiet_ms = duration_ms(options.quiet)
    ledger = ActionLedger.joined(
        [
            ledger_of(bucket, [threshold for threshold, _ in thresholds], quiet_ms, plan.label.horizon_ms)
            for bucket in replayed.by_person()
        ]
    )
    days = np.arange(window.from_ms // DAY_MS, window.last_ms // DAY_MS + 1)
    names = [policy.name for policy in policies]
    pairs = _pairs(policies)
    numbered = [(names.index(name), names.index(baseline)) for name, baseline in pairs]
    earned, differences = evaluate(ledger, len(policies), numbered, days, Prices(plan.benefit, plan.cost))
    length = max(1.0, (window.last_ms - window.from_ms) / DAY_MS)
    alarms = {
        bundle.manifest.version: alarm for bundle in plan.bundles if (alarm := leak(bundle.manifest, window.from_ms))
    }
    results = tuple(
        PolicyResult(
            name=policy.name,
            kind=policy.kind,
            acts_when=acts_when,
            threshold=None if policy.kind == "rule" else threshold,
            acted_on=float(np.mean(replayed.scores(policy.name) >= threshold)),
            earnings=one,
            per_day=Estimate(*(figure / length for figure in (one.earned.value, one.earned.low, one.earned.high))),
            alarm=alarms.get(policy.name),
            trainings=tuple(trainings) if policy.kind == "retrained" else (),
        )
        for policy, (threshold, acts_when), one in zip(policies, thresholds, earned)
    )
    no_data = _no_data(replayed)
    comparisons = tuple(
        compare(pair, difference, no_data, _unfair(pair, alarms)) for pair, difference in zip(pairs, differences)
    )
    return Backtest(
        label=str(plan.label),
        from_ms=window.from_ms,
        to_ms=window.to_ms,
        known_ms=window.known_ms,
        quiet=options.quiet,
        benefit=plan.benefit,
        cost=plan.cost,
        events=replayed.events,
        immature=replayed.immature,
        positives=replayed.positives,
        users=replayed.users,
        positive_users=replayed.positive_users,
        policies=results,
        comparisons=comparisons,
        warnings=tuple(_cautions(plan, replayed, rule_share)),
    )


def _decision(
    policy: DecisionPolicy, options: Options, plan: Plan, replayed: Replayed, rule_share: float | None
) -> tuple[float, str]:
    """The threshold of a policy's scores, and when it acts in words."""
    if policy.kind == "rule":
        return 0.5, describe_rule(plan.rule)
    if options.act_on is not None:
        share = rule_share if options.act_on == AS_THE_RULE else options.act_on
        threshold = threshold_of_share(replayed.scores(policy.name), share)
        if threshold == float("inf"):
            return threshold, "never"
        return threshold, f"score >= {threshold:.4g}, the highest {share:.2%}"
    given = dict(options.threshold)
    threshold = given.get(policy.name, given.get(None))
    if threshold is None:
        threshold = break_even(plan.benefit, plan.cost)
        return threshold, f"score >= {threshold:.4g}, cost/benefit"
    return threshold, f"score >= {threshold:.4g}"


def _pairs(policies: Sequence[DecisionPolicy]) -> list[tuple[str, str]]:
    """Each policy with the first one, and with the rule."""
    names = [policy.name for policy in policies]
    baselines = [names[0], *(policy.name for policy in policies[1:] if policy.kind == "rule")]
    return [
        (name, baseline)
        for baseline in baselines
        for name in names
        if name != baseline and not (name == RULE and baseline == names[0])
    ]


def _no_data(replayed: Replayed) -> str:
    """Why the data allows no comparison; empty if it does."""
    if replayed.positives in (0, replayed.events):
        which = "none" if not replayed.positives else "each"
        return f"{which} of the {replayed.events} events is positive"
    if replayed.users < LEAST_USERS:
        return f"the events are of {counted(replayed.users, 'user')}, and an interval needs {LEAST_USERS}"
    return ""


def _unfair(pair: tuple[str, str], alarms: dict[str, str]) -> str:
    leaky = [name for name in pair if name in alarms]
    return f"{' and '.join(leaky)} {'know' if len(leaky) > 1 else 'knows'} the future" if leaky else ""


def _cautions(plan: Plan, replayed: Replayed, rule_share: float | None) -> Iterator[str]:
    """What to keep in mind when reading the figures."""
    for bundle in plan.bundles:
        if not bundle.manifest.label.is_same_as(plan.label):
            version, outcome = bundle.manifest.version, bundle.manifest.label
            yield f"{version} predicts another outcome than the one that counts: {outcome}"
    if why := _no_data(replayed):
        yield f"no data for a comparison: {why}"
    elif replayed.positive_users < RELIABLE_USERS:
        yield f"only {replayed.positive_users} users have a positive event: the intervals are rough"
    if rule_share in (0.0, 1.0):
        yield f"the rule acts on {'no event' if not rule_share else 'every event'}, so it is no baseline"
