"""A topic of clicks: its records' format, their mapping if they are not in the contract, and the limits on clicks."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from udfs.contracts.clicks import Click, ClickDecoder, ClickLimits, click_of, click_type
from udfs.contracts.currencies import Currencies
from udfs.contracts.event_layout import STANDARD_LAYOUT, EventLayout
from udfs.contracts.lenient import read_object
from udfs.contracts.rejects import Reason, Reject
from udfs.mapping.adapter import ClickAdapter, RowError
from udfs.mapping.definition import ClickMapping

if TYPE_CHECKING:
    from udfs.formats.record_format import RecordFormat

#: Makes the click of a record's bytes. Raises an error that `udfs.contracts.rejects.explain` explains.
ClickParser = Callable[[bytes | None], Click]
RecordReader = Callable[[bytes | None], dict]


@dataclass(frozen=True)
class ClickTopic:
    """How the records of a topic become clicks."""

    limits: ClickLimits = ClickLimits()
    mapping: ClickMapping | None = None
    record_format: "RecordFormat | None" = None  # None: plain JSON
    currencies: Currencies | None = None  # None: amounts are taken as they are
    layout: EventLayout = STANDARD_LAYOUT

    @property
    def is_foreign(self) -> bool:
        """Whether the records' own bytes are not clicks in the contract."""
        return self.mapping is not None or self.record_format is not None

    @property
    def changes_clicks(self) -> bool:
        """Whether an accepted click may say something else than the record's own bytes do."""
        return self.is_foreign or self.currencies is not None

    def decoder(self) -> ClickDecoder:
        """A new decoder of the topic's records."""
        return ClickDecoder(self.limits, self._parser(), self.currencies, self.layout)

    def _parser(self) -> ClickParser | None:
        if not self.is_foreign:
            return None
        kind = click_type(self.layout)
        if self.record_format is None:
            return mapped_clicks(self.mapping, click_type=kind)
        from udfs.formats.record_format import reader  # takes 130 ms and 14 MB, which most topics don't need

        read = reader(self.record_format)
        if self.mapping is None:
            return lambda payload: click_of(read(payload), kind)
        return mapped_clicks(self.mapping, read, kind)


def mapped_clicks(
    mapping: ClickMapping, read: RecordReader = read_object, click_type: type[Click] = Click
) -> ClickParser:
    """The function that makes the click of a record whose columns `read` returns."""
    adapt = ClickAdapter(mapping).adapt

    def parse(payload: bytes | None) -> Click:
        try:
            click = adapt(read(payload))
        except RowError as error:
            raise Reject(Reason.UNFIT_ROW, str(error)) from None
        if click is None:
            raise Reject(Reason.IGNORED, "the mapping leaves this user or event out")
        return click_of(click, click_type)

    return parse
