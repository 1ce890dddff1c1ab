"""Decoding of the records of a part of the data, as the job decodes them."""

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from training.data.archive import Batch, Part, read_part
from training.data.dataset import ANY_TIME
from training.data.gaps import add_hours, hours_of
from training.data.sources import DAY_MS
from training.data.summary import Summary
from udfs.config.durations import now_ms
from udfs.contracts.clicks import LATEST_TIME_MS, ClickDecoder, ClickLimits, DecodedClicks
from udfs.contracts.event_layout import STANDARD_LAYOUT, EventLayout

#: For files without arrival times: any time in the past, and a day for clocks that are ahead.
UP_TO_NOW = ClickLimits(max_behind_ms=LATEST_TIME_MS, max_ahead_ms=DAY_MS)

#: For archives: they hold clicks that a job has accepted, under limits of its own.
ACCEPTED = replace(ANY_TIME, max_record_bytes=1 << 31)


class DecodedBatch(NamedTuple):
    """A batch of records, decoded, with at least one accepted click."""

    batch: Batch
    clicks: DecodedClicks
    rows: list[int]  # of the accepted clicks


def decoded_batches(part: Part, summary: Summary, layout: EventLayout = STANDARD_LAYOUT) -> Iterator[DecodedBatch]:
    """The batches of a part, all counted in `summary`.

    Raises SourceError and MappingError.
    """
    decode = ClickDecoder(ACCEPTED if part.is_archive else UP_TO_NOW, layout=layout).decode
    summary.own_kinds |= {name for name, _ in layout.own_kinds}
    for batch in read_part(part, summary.intake):
        arrival = batch.arrival_ms if part.is_archive else np.full(len(batch.payloads), now_ms())
        clicks = decode(batch.payloads, arrival.tolist())
        rows = summary.add_decoded(clicks)
        if rows:
            times = np.array(clicks.event_times_ms, np.int64)[rows]
            summary.first_ms = min(summary.first_ms, int(times.min()))
            summary.last_ms = max(summary.last_ms, int(times.max()))
            add_hours(summary.hours, hours_of(times))
            if part.is_archive:
                summary.last_arrival_ms = max(summary.last_arrival_ms, int(arrival[rows].max()))
            yield DecodedBatch(batch, clicks, rows)
