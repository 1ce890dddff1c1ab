"""The plan of a backtest: what the command's options ask for, with settings, models and rule that fit each other."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from training.backtesting.report import time_text
from training.backtesting.schedule import RETRAINED
from training.modeling.settings import Training, load_training
from udfs.config.durations import duration_ms
from udfs.features.declaration import Declaration, merged
from udfs.measurement.labels import CONVERTED, LABELS_FILE, Label, find_label
from udfs.models.bundle import Bundle, load_bundle
from udfs.rollout.plan import load_rule
from udfs.rollout.rules import Rule

DEFAULT_CONF = Path("conf", "training.yaml")
#: The name of the policy that is a rule.
RULE = "rule"
#: The value of --act-on that stands for the share of the rule.
AS_THE_RULE = "rule"


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


def make_plan(options: Options) -> Plan:
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
            f"--from and --to: the time between them is not longer than the label's horizon, {label.horizon}, so no "
            "label is known by its end: choose a longer time or another label"
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
