"""Records in event time: columns and watermarks of their tables, for the jobs that measure."""

from collections.abc import Mapping

import msgspec

from jobs.common.settings import Settings, reads_mapped_clicks
from jobs.common.tables import KAFKA_METADATA, columns, create_table
from udfs.config.durations import duration_ms

MAX_INTERVAL_MS = 99 * 86_400_000  # Flink's intervals have two digits of days

# A watermark has to come from the source, where nothing is decoded yet. What the score job would reject for its time,
# or can't be read, counts as of 1970: it moves no watermark, and the decoder then leaves it out.
# An event of a clock that is ahead, within decode.max_ahead, moves time no further than its record did: otherwise a few
# such clients would make the events of all others late.
# A record may hold what JSON_VALUE takes for no JSON though the decoder accepts it, such as NaN in a field that nobody
# reads: then the text is searched for the time.
# CAST, not DECODE: with that the code that Flink generates for a source does not compile (2.2.1).
EVENT_CLICKS = """
    payload BYTES,
    record_time TIMESTAMP_LTZ(3) {timestamp},
    source_partition {partition},
    source_offset {offset},
    happened AS TO_TIMESTAMP_LTZ(CAST(CASE
        WHEN ABS({claimed_ms} - {record_ms} - {middle_ms}) <= {reach_ms} THEN {claimed_ms} ELSE 0 END AS BIGINT), 3),
    WATERMARK FOR happened AS CASE WHEN happened > record_time THEN record_time ELSE happened END - {lateness}
"""
_CLAIMED_MS = """TRY_CAST(COALESCE(
            JSON_VALUE(CAST(payload AS STRING), '$.event_time'),
            REGEXP_EXTRACT(CAST(payload AS STRING), '"event_time"\\s*:\\s*"?([-+.0-9eE]+)', 1)
        ) AS DOUBLE)"""
#: Of the click's record, by which its score is found. Mapped clicks keep that of the record that they were made of.
_POSITION = (("partition", "INT"), ("offset", "BIGINT"))
_RECORD_MS = "EXTRACT(EPOCH FROM record_time) * 1000"  # to the second
_SECOND_MS = 1_000


def first_to_arrive(columns: str, view: str, key: str, condition: str = "TRUE") -> str:
    """The query of the rows of a view that meet a condition, of those with an equal key the first one to arrive.

    Flink keeps each key for state.ttl.
    """
    return f"""
SELECT {columns}
FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY {key} ORDER BY arrival) AS copy FROM {view} WHERE {condition})
WHERE copy = 1
"""


def counted_once(name: str, columns: str, view: str, key: str, within_ms: int) -> str:
    """The statement that declares a view of the rows of another one: of those with an equal key the first to arrive.

    Rows without a key are all in it, and so is every row if `within_ms` is 0. The other view makes its column `arrival`
    of PROCTIME() itself: then both parts share what the view computes.
    """
    rows = f"SELECT {columns} FROM {view}"
    if within_ms:
        rows += f" WHERE {key} IS NULL\nUNION ALL{first_to_arrive(columns, view, key, f'{key} IS NOT NULL')}"
    return f"CREATE TEMPORARY VIEW {name} AS\n{rows}"


# Delivery is at-least-once by default: after a failure, the score job may write clicks again. The first copy counts.
# The user tells it from a click of another topic, or of one that was made anew, at the same position.
FIRST_COPIES = "CREATE TEMPORARY VIEW event_clicks AS" + first_to_arrive(
    "payload, record_time, source_partition, source_offset, happened",
    "mapped_clicks",
    "user_id, source_partition, source_offset",
)


def click_tables(
    settings: Settings, options: Mapping[str, object], metadata: Mapping[str, str] = KAFKA_METADATA
) -> list[str]:
    """The statements that declare `event_clicks`, given the options of the topic's table."""
    definition = click_columns(settings, metadata)
    if not reads_mapped_clicks(settings):
        return [create_table("event_clicks", definition, options)]
    further = "user_id AS JSON_VALUE(CAST(payload AS STRING), '$.user_id'),\n    arrival AS PROCTIME()"
    return [create_table("mapped_clicks", f"{definition.rstrip()},\n    {further}\n", options), FIRST_COPIES]


def click_columns(settings: Settings, metadata: Mapping[str, str] = KAFKA_METADATA) -> str:
    """The columns of the clicks, whose rowtime is the time that a click claims."""
    behind_ms = duration_ms(settings.decode.max_behind)
    ahead_ms = duration_ms(settings.decode.max_ahead) + _SECOND_MS
    position = (
        {name: f"AS CAST(JSON_VALUE(CAST(payload AS STRING), '$.source_{name}') AS {kind})" for name, kind in _POSITION}
        if reads_mapped_clicks(settings)
        else {name: f"{kind} {metadata[name]}" for name, kind in _POSITION}
    )
    return EVENT_CLICKS.format(
        timestamp=metadata["timestamp"],
        **position,
        claimed_ms=_CLAIMED_MS,
        record_ms=_RECORD_MS,
        middle_ms=(ahead_ms - behind_ms) / 2,
        reach_ms=(ahead_ms + behind_ms) / 2,
        lateness=interval(duration_ms(settings.event_time.lateness)),
    )


def timed_columns(record: type[msgspec.Struct], time: str, settings: Settings) -> str:
    """The columns of a topic's records, whose rowtime `happened` is the field `time`, in ms since 1970."""
    lateness = interval(duration_ms(settings.event_time.lateness))
    return columns(
        record, f"happened AS TO_TIMESTAMP_LTZ({time}, 3)", f"WATERMARK FOR happened AS happened - {lateness}"
    )


def interval(milliseconds: int) -> str:
    """A duration as SQL writes it.

    >>> interval(1_799_999)
    "INTERVAL '0 00:29:59.999' DAY TO SECOND(3)"
    """
    seconds, rest = divmod(milliseconds, 1_000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return f"INTERVAL '{days} {hours:02}:{minutes:02}:{seconds:02}.{rest:03}' DAY TO SECOND(3)"
