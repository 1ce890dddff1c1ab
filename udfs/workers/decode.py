"""The handlers of the decode operators: raw Kafka records in, rows for the score operator and dead letters out."""

import time
from typing import TYPE_CHECKING

import numpy as np

from udfs.contracts.clicks import write_click
from udfs.contracts.event_layout import STANDARD_LAYOUT, EventLayout
from udfs.contracts.outputs import DeadLetter, iso_time, to_json
from udfs.contracts.profiles import ProfileDecoder
from udfs.contracts.rejects import Reason, Reject, explain
from udfs.features.user_slots import EVENT_ROW, PROFILE_ROW
from udfs.mapping.topic import ClickTopic
from udfs.metrics import LatencyMetric, RejectedMetric
from udfs.workers.metrics import MetricGroup
from udfs.workers.protocol import RECORD_HEADER, ProtocolError, Rows, SharedMemory, frame_record
from udfs.workers.server import Handler
from udfs.workers.user_rows import UserRows

if TYPE_CHECKING:
    from udfs.serving.population import Population

#: What a raw record begins with (RawRecordReader.java); its key and value follow. A length of -1 is null.
RAW_RECORD = np.dtype(
    [
        ("time_ms", "<i8"),
        ("offset", "<i8"),
        ("partition", "<i4"),
        ("key_bytes", "<i4"),
        ("value_bytes", "<i4"),
    ]
)

#: The outputs of both decode operators, and of that of clicks the clicks of a topic that is not in the contract, and
#: the rows of clicks with an anonymous id.
ROWS, DEAD_LETTERS, MAPPED_CLICKS, ANONYMOUS = range(4)


class ClickHandler(Handler):
    """Decodes click records of a topic."""

    def __init__(
        self, topic: str, clicks: ClickTopic, follow_logins: bool = False, population: "Population | None" = None
    ):
        """Keep the rows of clicks with an anonymous id apart if logins are to be followed.

        `population` says where the tables are that fill the layout's columns of the population.
        """
        self._topic, self._clicks, self._follow_logins, self._population = topic, clicks, follow_logins, population

    def open(self, memory: SharedMemory, metrics: MetricGroup) -> None:
        decoder = self._clicks.decoder()
        self._accept, self._pack = decoder.accept, decoder.pack
        self._rows = UserRows(decoder.layout.dtype)
        self._columns = None
        if self._population is not None:
            from udfs.serving.population import PopulationColumns  # takes 140 ms and 8 MB, which few jobs need

            self._columns = columns = PopulationColumns(self._population, decoder.layout)
            first = RECORD_HEADER.size + self._rows.type.fields["event"][1]
            self._event_bytes = slice(first, first + decoder.layout.dtype.itemsize)
            metrics.gauge("population_age_seconds", lambda: columns.age_s)
            metrics.gauge("population_tables_refused", lambda: columns.refused)
            columns.start()
        self._rejected = RejectedMetric(metrics, "clicks")
        self._decoding = LatencyMetric(metrics, "decode_ms")
        self._event_to_decode = LatencyMetric(metrics, "event_to_decode_ms")

    def close(self) -> None:
        if self._columns is not None:
            self._columns.stop()

    def process(self, rows: Rows) -> list[bytes]:
        started = time.perf_counter()
        heads = _heads(rows)
        payloads = _payloads(rows, heads)
        columns, places, user_ids = self._columns, [], []
        accept, pack, records, accepted_ms = self._accept, self._pack, [], []
        pack_head, head_bytes = self._rows.pack_head, self._rows.type.itemsize
        for payload, partition, offset, time_ms in zip(
            payloads, heads["partition"].tolist(), heads["offset"].tolist(), heads["time_ms"].tolist()
        ):
            try:
                click = accept(payload, time_ms)
                event = pack(click)
                key, event_id = click.user_id.encode(), click.event_id
                written_id = b"" if event_id is None else event_id.encode()
                visitor = click.visitor if self._follow_logins else None
            except Exception as error:  # explain() raises again what a record can't cause
                reject = explain(payload, error)
                self._rejected.count(reject.reason)
                if reject.reason is not Reason.IGNORED:
                    records.append(dead_letter(self._topic, partition, offset, time_ms, reject, payload))
                continue
            output, ids = ROWS, written_id + key
            has_id, user_bytes, key_bytes = event_id is not None, len(key), len(key)
            if visitor is not None:
                device = visitor.encode()
                output, ids, key_bytes = ANONYMOUS, ids + device, len(device)
            size = head_bytes + len(ids)
            head = pack_head(output, size, key_bytes, EVENT_ROW, has_id, user_bytes, partition, offset, time_ms, event)
            if columns is not None:
                places.append(len(records))
                user_ids.append(click.user_id)
            records.append(head + ids)
            if self._clicks.is_foreign:
                mapped = write_click(click, source_partition=partition, source_offset=offset)
                records.append(frame_record(MAPPED_CLICKS, mapped, key))
            accepted_ms.append(time_ms)
        if places:
            self._fill(records, places, user_ids, accepted_ms)
        self._decoding.observe((time.perf_counter() - started) * 1000)
        now_ms = time.time_ns() // 1_000_000
        self._event_to_decode.observe(*[now_ms - time_ms for time_ms in accepted_ms])
        return records

    def _fill(self, records: list[bytes], places: list[int], user_ids: list[str], arrival_ms: list[int]) -> None:
        """Fill the columns of the population in the rows at these places, for all of them at once."""
        event_bytes = self._event_bytes
        filled = self._columns.fill([records[place][event_bytes] for place in places], user_ids, arrival_ms)
        for place, event in zip(places, filled):
            row = records[place]
            records[place] = row[: event_bytes.start] + event + row[event_bytes.stop :]


class ProfileHandler(Handler):
    """Decodes profile records of a topic."""

    def __init__(self, topic: str, max_record_bytes: int, layout: EventLayout = STANDARD_LAYOUT):
        self._topic, self._max_record_bytes, self._layout = topic, max_record_bytes, layout

    def open(self, memory: SharedMemory, metrics: MetricGroup) -> None:
        self._accept = ProfileDecoder(self._max_record_bytes).accept
        self._rejected = RejectedMetric(metrics, "profiles")
        self._row = UserRows(self._layout.dtype).row

    def process(self, rows: Rows) -> list[bytes]:
        heads = _heads(rows)
        records = []
        for key, payload, partition, offset, time_ms in zip(
            _keys(rows, heads),
            _payloads(rows, heads),
            heads["partition"].tolist(),
            heads["offset"].tolist(),
            heads["time_ms"].tolist(),
        ):
            try:
                user_id, profile = self._accept(key, payload)
                user = user_id.encode()
            except Exception as error:  # explain() raises again what a record can't cause
                reject = explain(payload, error)
                self._rejected.count(reject.reason)
                records.append(dead_letter(self._topic, partition, offset, time_ms, reject, payload))
                continue
            records.append(self._row(PROFILE_ROW, profile, user, partition, offset, time_ms))
        return records


def dead_letter(topic: str, partition: int, offset: int, time_ms: int, reject: Reject, original: bytes | None) -> bytes:
    """A record for the dead-letter output, without a key."""
    letter = DeadLetter(topic, partition, offset, iso_time(time_ms), reject.reason.value, str(reject), original)
    value = to_json(letter)
    return frame_record(DEAD_LETTERS, value)


def _heads(rows: Rows) -> np.ndarray:
    """The heads of raw records, RAW_RECORD[n]. Raises ProtocolError for one of another length than its head says."""
    heads = rows.heads(RAW_RECORD)
    announced = RAW_RECORD.itemsize + sum(
        np.maximum(heads[part], 0).astype(np.int64) for part in ("key_bytes", "value_bytes")
    )
    if (announced != rows.ends - rows.starts).any():
        raise ProtocolError("a raw record is not as long as its head announces")
    return heads


def _keys(rows: Rows, heads: np.ndarray) -> list[bytes | None]:
    """The key of each raw record, None where there is none."""
    starts = rows.starts + RAW_RECORD.itemsize
    return _slices(rows.content, starts, starts + np.maximum(heads["key_bytes"], 0), heads["key_bytes"])


def _payloads(rows: Rows, heads: np.ndarray) -> list[bytes | None]:
    """The value of each raw record, None where there is none."""
    starts = rows.starts + RAW_RECORD.itemsize + np.maximum(heads["key_bytes"], 0)
    return _slices(rows.content, starts, rows.ends, heads["value_bytes"])


def _slices(content: bytes, starts: np.ndarray, ends: np.ndarray, lengths: np.ndarray) -> list[bytes | None]:
    slices = [content[start:end] for start, end in zip(starts.tolist(), ends.tolist())]
    for row in np.flatnonzero(lengths < 0).tolist():
        slices[row] = None
    return slices
