"""Replay recorded clicks under models, a rule and a retraining schedule, and report what each would have earned.

    python -m training.backtest --clicks archive --from 2026-05-01T00:00:00Z --to 2026-05-15T00:00:00Z --models A B

Exit codes: 0, the report is written; 2, refused, one line says why.
"""

import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import click
import msgspec
import numpy as np

from training.backtesting.decisions import break_even, threshold_of_share
from training.backtesting.earnings import Prices, compare, evaluate
from training.backtesting.leakage import leak
from training.backtesting.ledger import DAY_MS, ActionLedger, ledger_of
from training.backtesting.replay import DecisionPolicy, Replayed, ReplayWindow, Tenure, replay, time_span
from training.backtesting.report import (
    JSON_FILE,
    PAGE_FILE,
    Backtest,
    PolicyResult,
    html,
    record,
    text,
    time_text,
)
from training.backtesting.schedule import RETRAINED, ScheduledTraining, retrained
from training.data.archive import Arrived, find_parts, newest_arrival_ms
from training.data.intake import counted
from training.data.preparation import Preparation, Progress, prepare
from training.data.progress_bar import progress_bar
from training.data.summary import RELIABLE_USERS, Summary, warnings
from training.evaluation.rule_baseline import describe_rule
from training.modeling.metrics import Estimate
from training.modeling.settings import Training, load_training
from udfs.config.command_line import EXIT_USAGE, PATH, Command, Value, ValuesOption, run, set_option
from udfs.config.durations import Duration, duration_ms, read_moment
from udfs.features.declaration import Declaration, merged
from udfs.mapping.definition import MappingFile, load_mapping
from udfs.measurement.effects import LEAST_USERS
from udfs.measurement.labels import CONVERTED, LABELS_FILE, Label, find_label
from udfs.models.backends import build_engine
from udfs.models.bundle import Bundle, load_bundle
from udfs.rollout.plan import load_rule
from udfs.rollout.rules import Rule, matches, rule_features

DEFAULT_CONF = Path("conf", "training.yaml")
RULE = "rule"
#: The value of --act-on that stands for the share of the rule.
AS_THE_RULE = "rule"


def _duration(text: str) -> str:
    try:
        return msgspec.convert(text, Duration)
    except msgspec.ValidationError:
        raise ValueError(f"expected a duration such as 30 min, 12 h or 7 d, got {text!r}") from None


def _threshold(text: str) -> tuple[str | None, float]:
    name, has_name, number = text.rpartition("=")
    try:
        threshold = float(number)
    except ValueError:
        threshold = float("nan")
    if not 0 <= threshold <= 1:
        raise ValueError(f"expected a score from 0 to 1, such as 0.2, or VERSION=SCORE, got {text!r}")
    return (name if has_name else None), threshold


def _share(text: str) -> str | float:
    if text == AS_THE_RULE:
        return text
    try:
        share = float(text)
    except ValueError:
        share = float("nan")
    if not 0 < share <= 1:
        raise ValueError(
            f"expected a share above 0 and at most 1, such as 0.05 for 5 %, or {AS_THE_RULE}, got {text!r}"
        )
    return share


@dataclass(frozen=True)
class Options:
    """The options of the command."""

    clicks: Path
    profiles: Path | None
    mapping: Path | None
    from_ms: int
    to_ms: int
    models: tuple[Path, ...]
    rule: Path | None
    label: str | None
    retrain: str | None
    threshold: tuple[tuple[str | None, float], ...]
    act_on: str | float | None
    quiet: str
    benefit: float | None
    cost: float | None
    conf: Path | None
    overrides: tuple[str, ...]
    out: Path


@dataclass(frozen=True)
class Plan:
    """What is replayed: settings, label and policies, checked against each other."""

    training: Training
    label: Label
    bundles: tuple[Bundle, ...]
    rule: Rule | None
    declaration: Declaration  # of all features
    columns: tuple[tuple[str, ...], ...]  # for each bundle, the names of its features in the declaration
    benefit: float
    cost: float

    @property
    def versions(self) -> list[str]:
        return [bundle.manifest.version for bundle in self.bundles]


def _plan(options: Options) -> Plan:
    """Read settings and models. Raises ValueError for options or models that don't fit each other."""
    if options.from_ms >= options.to_ms:
        raise ValueError(f"--from {time_text(options.from_ms)} must be before --to {time_text(options.to_ms)}")
    if not options.models and options.retrain is None:
        raise ValueError("nothing to replay: give --models BUNDLE..., --retrain EVERY, or both")
    if options.retrain is not None and not duration_ms(options.retrain):
        raise ValueError(f"--retrain {options.retrain}: expected more than 0")
    training = load_training(options.conf, options.overrides)
    bundles = tuple(load_bundle(path, None) for path in options.models)
    _check_versions(bundles, options.models)
    label = _label(options, bundles)
    if options.to_ms - options.from_ms <= label.horizon_ms:
        raise ValueError(
            f"--from and --to: no label can be known by the end of less than its horizon, {label.horizon}: "
            "choose a longer time or another label"
        )
    training = msgspec.structs.replace(training, history_length=_history_length(training, bundles, options.retrain))
    base = _base_declaration(training, bundles, may_differ=options.conf is None and options.retrain is None)
    rule = training.rule if options.rule is None else load_rule(options.rule, base)
    declaration, found = merged(base, [bundle.declaration for bundle in bundles])
    columns = tuple(tuple(names[name] for name in bundle.manifest.features) for bundle, names in zip(bundles, found))
    plan = Plan(
        training,
        label,
        bundles,
        rule,
        declaration,
        columns,
        training.benefit if options.benefit is None else options.benefit,
        training.cost if options.cost is None else options.cost,
    )
    _check_decisions(options, plan)
    return plan


def _check_versions(bundles: Sequence[Bundle], paths: Sequence[Path]) -> None:
    seen: dict[str, Path] = {}
    for bundle, path in zip(bundles, paths):
        version = bundle.manifest.version
        if version in seen:
            raise ValueError(f"--models: {seen[version]} and {path} are the same version, {version}: name each once")
        if version in (RULE, RETRAINED):
            raise ValueError(f"--models: {path} has the version {version}, which stands for something else here")
        seen[version] = path


def _label(options: Options, bundles: Sequence[Bundle]) -> Label:
    """The label that counts: the one named, or the one of all models."""
    if options.label is not None:
        return find_label(options.label, (options.conf or DEFAULT_CONF).with_name(LABELS_FILE))
    if not bundles:
        return CONVERTED
    first, *others = (bundle.manifest for bundle in bundles)
    for other in others:
        if not other.label.is_same_as(first.label):
            raise ValueError(
                f'--models: {first.version} predicts "{first.label}", {other.version} predicts "{other.label}": '
                "name the outcome that counts with --label"
            )
    return first.label


def _history_length(training: Training, bundles: Sequence[Bundle], retrain: str | None) -> int:
    lengths = {bundle.manifest.version: bundle.manifest.history_length for bundle in bundles}
    if retrain is not None:
        lengths["--retrain"] = training.history_length
    named = list(lengths)
    for name in named[1:]:
        if lengths[name] != lengths[named[0]]:
            raise ValueError(
                f"history_length: {named[0]} sees {lengths[named[0]]} events of a user, {name} sees {lengths[name]}: a "
                "job keeps one number; set the same for all, or replay them one by one"
            )
    return next(iter(lengths.values()), training.history_length)


def _base_declaration(training: Training, bundles: Sequence[Bundle], may_differ: bool) -> Declaration:
    """The declaration that says what is kept of events; that of the settings or, if it may differ, of a model."""
    candidates = [training.declared, *(bundle.declaration for bundle in bundles if may_differ)]
    for base in candidates:
        if all(_lacking(base, bundle) is None for bundle in bundles):
            return base
    version, lacking = next(
        (bundle.manifest.version, lacking) for bundle in bundles if (lacking := _lacking(training.declared, bundle))
    )
    raise ValueError(
        f"--models: {version} needs {lacking}, which the declaration of the settings lacks: name one that has what all "
        "models need with --set declaration=FILE, or replay the models one by one"
    )


def _lacking(base: Declaration, bundle: Bundle) -> str | None:
    """What a model needs of events that a declaration does not keep alike, in words; None for nothing."""
    if base.session_gap_ms != bundle.declaration.session_gap_ms:
        return f"a session_gap of {bundle.declaration.session_gap_ms / 60_000:g} min"
    return next(iter(base.layout.without(bundle.declaration.layout)), None)


def _check_decisions(options: Options, plan: Plan) -> None:
    if options.act_on == AS_THE_RULE and plan.rule is None:
        raise ValueError(f"--act-on {AS_THE_RULE}: there is no rule: name its file with --rule")
    names = [name for name, _ in options.threshold]
    known = [*plan.versions, *([RETRAINED] if options.retrain else [])]
    for name in names:
        if name is not None and name not in known:
            raise ValueError(f"--threshold {name}=...: expected one of {', '.join(known)}")
        if names.count(name) > 1:
            raise ValueError(f"--threshold: {name or 'the threshold of all models'} is given twice")


def _backtest(options: Options, plan: Plan, step: Progress, note: Callable[[str], None]) -> Backtest:
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
    return _result(options, plan, window, policies, trainings, replayed)


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
    preparation = Preparation(
        plan.label,
        plan.declaration,
        features,
        history_length=plan.training.history_length,
        duplicates_within_ms=plan.training.duplicates_within_ms,
        follow_logins=plan.training.follow_logins,
        bots=plan.training.bots,
        workers=plan.training.threads,
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


def _result(
    options: Options,
    plan: Plan,
    window: ReplayWindow,
    policies: Sequence[DecisionPolicy],
    trainings: Sequence[ScheduledTraining],
    replayed: Replayed,
) -> Backtest:
    rule_share = None if plan.rule is None else float(np.mean(replayed.scores(RULE)))
    thresholds = [_decision(policy, options, plan, replayed, rule_share) for policy in policies]
    quiet_ms = duration_ms(options.quiet)
    ledger = ActionLedger.joined(
        [
            ledger_of(bucket, [threshold for threshold, _ in thresholds], quiet_ms, plan.label.horizon_ms)
            for bucket in replayed.buckets
        ]
    )
    ledger = ActionLedger(ledger.policy, replayed.people(ledger.user), ledger.day, ledger.actions, ledger.conversions)
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


@click.command(
    "backtest", cls=Command, at_most_one=("threshold", "act_on"), errors={ValueError: EXIT_USAGE, OSError: EXIT_USAGE}
)
@click.option(
    "--clicks",
    type=PATH,
    required=True,
    metavar="PATH",
    help="Clicks to replay, with those from before --from: an archive, a file or a directory of files.",
)
@click.option(
    "--profiles",
    type=PATH,
    metavar="PATH",
    help="Profiles of the users: an archive, or .jsonl files in which `updated_at` (ms) is the time of each profile.",
)
@click.option("--mapping", type=PATH, metavar="FILE", help="YAML file that maps columns to fields, as for training.")
@click.option(
    "--from",
    "from_ms",
    type=Value("time", read_moment),
    required=True,
    metavar="TIME",
    help="Begin of the replay: 2026-05-01T08:00:00Z or milliseconds since 1970. Earlier clicks are the users' history.",
)
@click.option(
    "--to",
    "to_ms",
    type=Value("time", read_moment),
    required=True,
    metavar="TIME",
    help="End of the replay, excluded. Events whose label is not known by then are left out and counted.",
)
@click.option(
    "--models",
    cls=ValuesOption,
    type=PATH,
    metavar="BUNDLE...",
    help="Bundles to replay; the others are compared with the first one.",
)
@click.option(
    "--rule",
    type=PATH,
    metavar="FILE",
    help="Rollout file whose rule is replayed too; by default the rule of --conf, if it has one.",
)
@click.option(
    "--retrain",
    type=Value("duration", _duration),
    metavar="EVERY",
    help="Also replay a retraining schedule, such as 7 d: at --from and after each interval, a model is trained with "
    "the settings on what was known then, and serves from then on.",
)
@click.option(
    "--label",
    metavar="LABEL",
    help="Outcome that counts, by default what the models predict: a name from the labels.yaml beside --conf, or "
    "`EVENT within DURATION`.",
)
@click.option(
    "--threshold",
    cls=ValuesOption,
    type=Value("threshold", _threshold),
    metavar="[VERSION=]SCORE...",
    help="Scores from which on models act, by default cost/benefit; a number alone is for all models.",
)
@click.option(
    "--act-on",
    type=Value("share", _share),
    metavar="SHARE|rule",
    help="Let each model act on this share of the events, those with the highest scores; `rule`: on the same share as "
    "the rule.",
)
@click.option(
    "--quiet",
    type=Value("duration", _duration),
    default="30 min",
    metavar="DURATION",
    help="Time after an action in which the user is not acted on again.",
)
@click.option(
    "--benefit",
    type=click.FloatRange(min=0, min_open=True),
    metavar="NUMBER",
    help="Value of acting on a user who converts; by default that of --conf.",
)
@click.option(
    "--cost",
    type=click.FloatRange(min=0),
    metavar="NUMBER",
    help="Cost of an action, in the same currency; by default that of --conf.",
)
@click.option(
    "--conf",
    type=PATH,
    metavar="FILE",
    help="Training settings, for example conf/training.yaml; by default the built-in ones.",
)
@set_option("bots=null")
@click.option("--out", type=PATH, required=True, metavar="DIR", help=f"Directory for {PAGE_FILE} and {JSON_FILE}.")
def command(**given: Any) -> None:
    """Report what models would have earned on recorded clicks.

    Clicks are replayed as if live: features, labels and trainings see only what was known at the time.

    \b
    Examples:
      intent backtest --clicks archive --from 2026-05-01T00:00:00Z --to 2026-05-15T00:00:00Z --models a b --out report
      intent backtest --clicks c.csv --from 2026-05-01T00:00:00Z --to 2026-05-15T00:00:00Z --retrain "7 d" --out report
    """
    options = Options(**given)
    plan = _plan(options)
    with progress_bar() as step:
        result = _backtest(options, plan, step, lambda line: print(f"backtest: {line}", file=sys.stderr))
    for line in result.warnings:
        print(f"backtest: {line}", file=sys.stderr)
    print(text(result))
    (options.out / PAGE_FILE).write_bytes(html(result))
    (options.out / JSON_FILE).write_bytes(record(result))
    print(f"\nwrote {options.out}/{PAGE_FILE} and {JSON_FILE}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Replay recorded clicks and report; return the exit code."""
    return run(command, "python -m training.backtest", arguments)


if __name__ == "__main__":
    sys.exit(main())
