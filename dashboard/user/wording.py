"""Features and their values in words."""

import math

from udfs.contracts.profiles import country_of
from udfs.features.catalog import FEATURES
from udfs.rollout.rules import VOCABULARIES

_BY_NAME = {feature.name: feature for feature in FEATURES}
_PLURAL = {"events", "items", "categories", "pages", "days"}


def describe(name: str) -> str:
    """The description of a feature; empty for one that this release does not have."""
    return _BY_NAME[name].description if name in _BY_NAME else ""


def value_text(name: str, value: float) -> str:
    """A feature's value with its unit, codes by name.

    >>> value_text("device", 2.0), value_text("since_cart_add_s", 90.0), value_text("cart_adds_30m", 1.0)
    ('mobile', '1.5 min', '1 event')
    """
    if math.isnan(value):
        return "missing"
    if name == "country":
        return country_of(int(value))
    if name in VOCABULARIES:
        words = VOCABULARIES[name]
        return words[int(value)] if 0 <= value < len(words) else f"{value:g}"
    unit = _BY_NAME[name].unit if name in _BY_NAME else ""
    if unit == "flag":
        return "yes" if value else "no"
    if unit == "s":
        return _duration(value)
    if unit in ("percent", "share"):
        return f"{value:.3g}" + ("%" if unit == "percent" else "")
    if unit in _PLURAL:
        singular = {"categories": "category"}.get(unit, unit.removesuffix("s"))
        return f"{value:,.0f} {singular if value == 1 else unit}"
    return f"{value:,.4g}" if unit in ("code", "step", "hour", "day", "ratio", "") else f"{value:,.2f}"


def _duration(seconds: float) -> str:
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length:
            count = seconds / length
            return f"{count:,.0f} {unit}" if count >= 1_000 else f"{count:.3g} {unit}"
    return f"{seconds:.3g} s"
