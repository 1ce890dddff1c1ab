"""What was added to a declaration, and what to do next."""

from pathlib import Path

from intent.features.cost import Costs
from udfs.contracts.event_layout import STANDARD_LAYOUT
from udfs.features.declaration import Declaration

_KIND = """\
added the kind of event {name} with the code {code} to {path}

Next:
  Use it in a feature:        intent features add NAME "count(kind == {name})" --unit events --doc TEXT
  Submit the job again with:  clicks.declaration: {path}
  Until then, the job stores these events as `other`. Promote a model with the kind after that."""

_TRAIN = """\
Next:
  Train a model with it:      intent train --conf conf/training.yaml --set declaration={path} --clicks PATH --out DIR
  {job}"""
_NO_CHANGE = "The job needs no change: the bundle of the model contains the feature."
_NO_CHANGE_IF_KNOWN = """\
The job needs no change if it was submitted with the kinds, columns and totals of the file.
  Otherwise submit it again:  clicks.declaration: {path}"""
_CHANGE = """\
Submit the job again with:  clicks.declaration: {path}
  It must keep {lacking}. Promote the model after that.
  To go on from a savepoint with new columns or totals, the job also needs state.new_columns: empty."""


def kind_text(path: Path, name: str, code: int) -> str:
    """The kind that was added, and the next steps."""
    return _KIND.format(path=path, name=name, code=code)


def feature_text(path: Path, before: Declaration, after: Declaration, costs: Costs) -> str:
    """The features that were added, their cost, and the next steps."""
    lines = []
    for feature in after.features:
        if feature.name not in before:
            lines += [
                f"added {feature.name} to {path}, group {feature.group}",
                f"  {feature.text}",
                f"  {feature.unit}: {feature.description}",
                f"  {costs.features[feature.name]:.2f} µs per event",
            ]
    (total,) = costs.sets.values()
    lines.append(f"All {len(after.names)} features take {total:.2f} µs per event, measured on this machine.")
    return "\n".join([*lines, "", _TRAIN.format(path=path, job=_job_text(path, before, after))])


def _job_text(path: Path, before: Declaration, after: Declaration) -> str:
    if lacking := before.layout.without(after.layout):
        return _CHANGE.format(path=path, lacking=", ".join(lacking))
    if after.layout != STANDARD_LAYOUT:
        return _NO_CHANGE_IF_KNOWN.format(path=path)
    return _NO_CHANGE
