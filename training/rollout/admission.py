"""Checks that a model must pass before it may serve."""

from collections.abc import Mapping

import numpy as np

from training.rollout.admission_settings import DEFAULTS, Admission
from training.rollout.trial import try_bundle
from udfs.config.text import one_line
from udfs.models.backends import OnnxScorer, Scorer
from udfs.models.bundle import (
    EXPORT_FILE,
    EXPORT_LIMIT,
    WARM_UP_FILE,
    Bundle,
    BundleError,
    Manifest,
    check_scores,
    read_bundle,
    read_manifest,
)
from udfs.rollout.plan import Rollout, check_rules
from udfs.rollout.registry import Registry

METRIC = "test_roc_auc"

#: The rows that a model scores in its trial.
TRIAL_ROWS = 1_000


class HoldoutError(ValueError):
    """A model whose holdout metrics are worse than the champion's, or missing; `--force` overrides it."""


def check_bundle(bundle: Bundle) -> None:
    """Raises BundleError when a bundle has no valid certificate, or does not reproduce the scores of its warm-up rows.

    A remote model has no export to certify; raises RemoteError when it does not answer.
    """
    version, certificate = bundle.manifest.version, bundle.manifest.export
    if bundle.manifest.is_remote:
        check_scores(bundle, Scorer(bundle).predict(bundle.warm_up.features), bundle.own_tolerance)
        return
    if bundle.export is None:
        raise BundleError(f"{version}: {EXPORT_FILE} is missing")
    if not certificate.get("rows") or not {"limit", "largest_difference"} <= certificate.keys():
        raise BundleError(f"{version}: {EXPORT_FILE} has no certificate: train again")
    difference, limit = certificate["largest_difference"], certificate["limit"]
    if not difference <= limit <= EXPORT_LIMIT:
        raise BundleError(
            f"{version}: {EXPORT_FILE} is certified with difference {difference:.2e} and limit {limit:.2e}: the "
            f"difference must be within the limit, and the limit must be at most {EXPORT_LIMIT:.0e}"
        )
    if bundle.warm_up is None:
        raise BundleError(f"{version}: {WARM_UP_FILE} is missing")
    check_scores(bundle, Scorer(bundle).predict(bundle.warm_up.features), bundle.own_tolerance)
    check_scores(bundle, _export_scores(bundle), limit, EXPORT_FILE)


def check_trial(bundle: Bundle) -> None:
    """`check_bundle`, and the scores of TRIAL_ROWS rows by both engines: what a trial bounds."""
    check_bundle(bundle)
    rows = np.resize(bundle.warm_up.features, (TRIAL_ROWS, len(bundle.manifest.features)))
    Scorer(bundle).predict(rows)
    OnnxScorer(bundle.export).predict(rows)


def admit(
    files: Mapping[str, bytes], origin: str, history_length: int | None, admission: Admission = DEFAULTS
) -> Manifest:
    """Check a bundle, given all its files, in a trial with the bounds of `admission`; returns its manifest.

    A remote model, which runs elsewhere, is checked without a trial. Raises BundleError, and RemoteError when a remote
    model does not answer.
    """
    read = files.__getitem__
    manifest = read_manifest(read, origin)
    if manifest.is_remote:
        check_bundle(read_bundle(read, origin, history_length))
    else:
        try_bundle(files, origin, history_length, admission, check_trial)
    return manifest


def check_holdout(candidate: Manifest, champion: Manifest) -> None:
    """Raises HoldoutError when the candidate's AUC is below the champion's 95 % interval.

    The candidate's own interval is not used, or a barely tested model would pass; equal models are rarely rejected (8 %
    for holdouts of one size).
    """
    version = candidate.version
    if not candidate.label.is_same_as(champion.label):
        raise HoldoutError(
            f'{version} predicts "{candidate.label}", the champion "{champion.label}": no metric compares the two'
        )
    auc = candidate.metrics.get(METRIC, np.nan)
    best, bound = (champion.metrics.get(name, np.nan) for name in (METRIC, f"{METRIC}_low"))
    if not auc >= bound:
        raise HoldoutError(
            f"{version}: {METRIC} is {auc:.4f} but must be at least {bound:.4f}, the lower end of the interval of "
            f"the champion's {best:.4f}"
        )


def gaining(old: Rollout | None, new: Rollout) -> list[str]:
    """The versions that a change lets score, or act for more users than before."""
    before = _weights(old) if old is not None else {}
    return [version for version, weight in _weights(new).items() if weight > before.get(version, (0, 0.0))]


def newcomers(old: Rollout | None, new: Rollout) -> list[tuple[str, str]]:
    """The versions that a change lets act for the first time, each with the champion to compare it with."""
    if old is None:
        return []
    acted = {old.champion, *(part.version for part in old.challengers)}
    pairs = [(new.champion, old.champion), *((part.version, new.champion) for part in new.challengers)]
    return [(version, champion) for version, champion in pairs if version not in acted]


def check_models(registry: Registry, old: Rollout | None, new: Rollout, admission: Admission = DEFAULTS) -> None:
    """Raises BundleError when a model that gains by a change must not serve, or not together with the others;
    RolloutError when a rule is not about the champion's features.
    """
    if registry.manifest(new.champion).is_remote and (old is None or registry.local_champion() is None):
        raise BundleError(
            f"{new.champion} is remote: it needs a local champion before it as the fallback when it fails"
        )
    history_length = registry.manifest(new.champion).history_length
    for version in gaining(old, new):
        admit(registry.bundle_files(version), registry.origin(version), history_length, admission)
    check_rules(new, registry.declaration(new.champion))


def check_newcomers(registry: Registry, old: Rollout | None, new: Rollout) -> None:
    """Raises HoldoutError when a model that starts to act fails the comparison with the champion."""
    for version, champion in newcomers(old, new):
        check_holdout(registry.manifest(version), registry.manifest(champion))


def _weights(rollout: Rollout) -> dict[str, tuple[int, float]]:
    """Rank and share of each version: a shadow below a challenger below the champion."""
    return {
        **dict.fromkeys(rollout.shadows, (1, 0.0)),
        **{part.version: (2, part.share) for part in rollout.challengers},
        rollout.champion: (3, 1.0),
    }


def _export_scores(bundle: Bundle) -> np.ndarray:
    try:
        return OnnxScorer(bundle.export).predict(bundle.warm_up.features)
    except Exception as error:  # ONNX Runtime's errors have no common class
        message = one_line(error)
        raise BundleError(f"{bundle.manifest.version}: {EXPORT_FILE} is not an ONNX model: {message}") from error
