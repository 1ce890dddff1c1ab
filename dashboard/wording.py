"""Features and their values in words."""

import math

from udfs.contracts.profiles import country_of
from udfs.features.declaration import Declaration
from udfs.features.event_codes import code_text

_PLURAL = {"events", "items", "categories", "pages", "days"}


def value_text(declaration: Declaration, name: str, value: float) -> str:
    """A feature's value with its unit, codes by name.

    >>> from udfs.features.declaration_file import STANDARD
    >>> value_text(STANDARD, "device", 2.0), value_text(STANDARD, "since_cart_add_s", 90.0)
    ('mobile', '1.5 min')
    """
    if math.isnan(value):
        return "missing"
    feature, codes = declaration[name], declaration.vocabulary(name)
    if feature.is_country:
        return country_of(int(value))
    if feature.is_event_code:
        return code_text(int(value))
    if codes is not None:
        return next((word for word, code in codes.items() if code == value), f"{value:g}")
    unit = feature.unit
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
