"""Currencies: one per shop, others converted by a table of rates."""

from typing import Annotated

import msgspec
from msgspec import Meta

CurrencyCode = Annotated[str, Meta(pattern="^[A-Z]{3}$", title="ISO 4217 code, such as EUR")]
Rate = Annotated[float, Meta(gt=0, le=1e9)]


class Currencies(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The shop's currency, and what one unit of each other currency is worth in it."""

    shop: CurrencyCode
    rates: dict[CurrencyCode, Rate] = {}

    def rate(self, currency: str | None) -> float:
        """What one unit of a currency is worth; 1 where none is given. Raises ValueError for an unknown one.

        >>> Currencies(shop="EUR", rates={"USD": 0.92}).rate("usd")
        0.92
        """
        code = None if currency is None else currency.strip().upper()
        if code in (None, "", self.shop):
            return 1.0
        rate = self.rates.get(code)
        if rate is None:
            known = ", ".join([self.shop, *self.rates])
            raise ValueError(f"currency {currency}: no rate to {self.shop}, only of {known}; add it to the rates")
        return rate
