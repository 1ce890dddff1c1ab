"""The importance of features in a bundle's model."""

from udfs.models.bundle import LIGHTGBM_FILE, Bundle, load_booster
from udfs.models.lightgbm_text import load_text


def gain_shares(bundle: Bundle) -> dict[str, float] | None:
    """The share of each feature in the gain of all splits of the trees; None for a remote model, which is not here."""
    if bundle.manifest.is_remote:
        return None
    if bundle.model_file == LIGHTGBM_FILE:
        gains = load_text(bundle.model).feature_importance("gain").tolist()
    else:
        by_name = load_booster(bundle.model).get_score(importance_type="total_gain")  # without those of no split
        gains = [by_name.get(name, 0.0) for name in bundle.manifest.features]
    total = sum(gains)
    return {name: gain / total if total else 0.0 for name, gain in zip(bundle.manifest.features, gains)}
