"""The registry as text: current rollout, staged bundles, ledger."""

import shlex

import msgspec

from training.rollout.admission import METRIC
from training.rollout.guardrails import guardrails_at
from udfs.models.bundle import BundleError
from udfs.rollout.plan import Rollout
from udfs.rollout.registry import Entry, Registry, RegistryError
from udfs.rollout.rules import Rule

SHOWN = {METRIC: "AUC", "test_average_precision": "average precision", "test_log_loss": "log loss"}


def serving_lines(registry: Registry, entry: Entry) -> list[str]:
    """An entry's rollout: the arms, the metrics of their models, and the next step."""
    rollout = entry.rollout
    control, steps = rollout.control, rollout.steps
    lines = [entry_line(entry)]
    note = "" if rollout.eligible is None else "; also serves ineligible users"
    lines.append(f"champion    {rollout.champion_share:7.2%}  {rollout.champion}{note}")
    if control.at_most:
        lines.append(f"control     {control.share:7.2%}  rule-based, no model; maximum share {_share(control.at_most)}")
    for part in rollout.challengers:
        step = next((step for step in steps if step.share > part.share), None)
        planned = f", next step {_share(min(step.share, part.at_most))}" if step and part.share < part.at_most else ""
        limit = f"maximum share {_share(part.at_most)}{planned}" if rollout.bandit is None else "share by the bandit"
        lines.append(f"challenger  {part.share:7.2%}  {part.version}; {limit}")
        lines += _guardrails(rollout, part.share)
    lines += [f"shadow               {version}" for version in rollout.shadows]
    lines += ["", *(f"{version}: {_metrics(registry, version)}" for version in rollout.versions)]
    return [*lines, *_settings(rollout)]


def bundle_lines(registry: Registry) -> list[str]:
    """A line for each staged bundle."""
    lines = [f"{version}: {_metrics(registry, version)}" for version in registry.versions()]
    return lines or ["no bundles are staged; stage one with `stage DIR`"]


def ledger_lines(registry: Registry) -> list[str]:
    """A line for each entry, the newest last."""
    lines = []
    for number in registry.numbers():
        try:
            entry = registry.entry(number)
            lines.append(f"{number}  incomplete, skipped" if entry is None else entry_line(entry))
        except RegistryError as error:
            lines.append(f"{number}  {error}")
    return lines or ["the ledger is empty; start it with `start VERSION --champion`"]


def entry_line(entry: Entry) -> str:
    """An entry in one line: number, time, author, command, reason."""
    notes = [f"restores {entry.restores}"] if entry.restores else []
    notes += ["forced"] if entry.forced else []
    suffix = f" ({', '.join(notes)})" if notes else ""
    when = f"{entry.at:%Y-%m-%d %H:%M:%S} UTC"
    return f"{entry.number}  {when}  {entry.by}: {shlex.join(entry.command)}{suffix}: {entry.why}"


def _guardrails(rollout: Rollout, share: float) -> list[str]:
    """The guardrails of the step that a share has reached."""
    held = ", ".join(f"{kpi} {worse:.1%}" for kpi, worse in guardrails_at(rollout, share).items())
    return [f"{'':21}guardrails, maximum loss against the champion: {held}"] if held else []


def _metrics(registry: Registry, version: str) -> str:
    try:
        manifest = registry.manifest(version)
    except (BundleError, RegistryError) as error:
        return f"cannot serve: {error}"
    metrics = manifest.metrics
    parts = []
    for name, title in SHOWN.items():
        if name in metrics:
            interval = [metrics.get(f"{name}_{end}") for end in ("low", "high")]
            parts.append(
                f"{title} {metrics[name]:.4f}" + ("" if None in interval else " ({:.4f} to {:.4f})".format(*interval))
            )
    return f"{', '.join(parts) or 'no metrics'}; {manifest.label}; created {manifest.created_at:%Y-%m-%d %H:%M} UTC"


def _share(share: float) -> str:
    """A share as a percentage, without digits that are 0.

    >>> _share(0.05), _share(0.125)
    ('5%', '12.5%')
    """
    return f"{100 * share:g}%"


def _in_json(rule: Rule) -> str:
    return msgspec.json.encode(rule).decode()


def _settings(rollout: Rollout) -> list[str]:
    drawn_by = "" if rollout.challenger_salt is None else f", of challengers {rollout.challenger_salt}"
    bandit = rollout.bandit
    plan = (
        f"steps {', '.join(_share(step.share) for step in rollout.steps)}"
        if bandit is None
        else f"bandit on {bandit.kpi}, at least {_share(bandit.floor)} for each arm, new shares every {bandit.every}"
    )
    return [
        "",
        f"salt {rollout.salt}{drawn_by}; {plan}",
        f"rule {'none' if rollout.rule is None else _in_json(rollout.rule)}",
        f"eligible {'all users' if rollout.eligible is None else _in_json(rollout.eligible)}",
    ]
