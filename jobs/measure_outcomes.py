"""Join each score with its outcome, and measure the quality of the models per minute.

    flink run -pym jobs.measure_outcomes -pyfs dist/*.whl --conf conf/local.yaml

scores ── due a horizon later ──────────────────────┐
clicks ── decode ── what they add to an outcome ────┴▶ sum in (time, time + horizon] ──▶ outcomes, model_quality

The job runs in event time: a score waits in state until its horizon has passed, and then one row gives its outcome.
"""

import sys
from collections.abc import Sequence

from pyflink.table import StatementSet, TableEnvironment

from jobs.common.event_time import MAX_INTERVAL_MS, click_tables, counted_once, interval
from jobs.common.settings import ConfigError, Settings, click_topic, load_settings, outcome_settings
from jobs.common.statements import build_job
from jobs.common.submission import parse_arguments, submit
from jobs.common.tables import columns, create_table, kafka_sink, kafka_source, keyed_sink
from jobs.common.topics import check_topics
from udfs.config.durations import duration_ms
from udfs.contracts.outputs import ModelQuality, Outcome, Score
from udfs.contracts.packed_events import EVENT_KINDS
from udfs.flink.outcomes import MeasureQuality, ReadAmounts
from udfs.kafka.errors import KafkaClientError
from udfs.measurement.labels import LABELS_FILE, Label, LabelError, find_label
from udfs.measurement.quality import MEASURES

SENT_AMOUNTS = """
CREATE TEMPORARY VIEW sent_amounts AS
SELECT a.user_id, a.anonymous_id, a.amount, a.repeat_key, happened, PROCTIME() AS arrival
FROM (SELECT read_amounts(payload, CAST(record_time AS TIMESTAMP(3))) AS a, happened FROM event_clicks)
WHERE a.amount > 0
"""

_COLUMNS = "user_id, anonymous_id, amount, happened"

USERS_AMOUNTS = """
CREATE TEMPORARY VIEW amounts AS
SELECT user_id, amount, happened FROM counted_amounts
"""
# What a user does after a login is an outcome of the scores before it, which have the anonymous id.
LOGINS_AMOUNTS = f"""{USERS_AMOUNTS}
UNION ALL
SELECT anonymous_id, amount, happened FROM counted_amounts WHERE anonymous_id IS NOT NULL
"""

# The same click may be scored twice where delivery is at-least-once: its first score counts.
# The window leaves out the moment of the score itself: (time, time + horizon], in milliseconds.
MATURED_SCORES = """
CREATE TEMPORARY VIEW matured_scores AS
SELECT user_id, event_id, event_name, event_time, score, decision, arm, model_version, happened,
    (COALESCE(amount, 0) >= {least}) <> {absent} AS label, {evaluated} AS evaluated,
    source_partition, source_offset
FROM (
    SELECT *, SUM(added) OVER (
        PARTITION BY user_id ORDER BY happened RANGE BETWEEN {window} PRECEDING AND CURRENT ROW) AS amount
    FROM (
        SELECT user_id, happened, CAST(NULL AS BIGINT) AS added, event_id, event_name, event_time, score, decision,
            arm, model_version, source_partition, source_offset
        FROM (
            SELECT user_id, due AS happened, event_id, event_name, event_time, score, decision, arm, model_version,
                source_partition, source_offset, ROW_NUMBER() OVER (
                    PARTITION BY user_id, source_partition, source_offset ORDER BY arrival) AS copy
            FROM due_scores
        )
        WHERE copy = 1
        UNION ALL
        SELECT user_id, happened, amount, CAST(NULL AS STRING), CAST(NULL AS STRING), CAST(NULL AS BIGINT),
            CAST(NULL AS FLOAT), CAST(NULL AS BOOLEAN), CAST(NULL AS STRING), CAST(NULL AS STRING),
            CAST(NULL AS INT), CAST(NULL AS BIGINT)
        FROM amounts
    )
)
WHERE model_version IS NOT NULL
"""

OUTCOMES = """
INSERT INTO outcomes
SELECT user_id, event_id, event_name, event_time, score, decision, arm, model_version, label, evaluated,
    event_time + {horizon_ms}, source_partition, source_offset
FROM matured_scores
"""

MODEL_QUALITY = """
INSERT INTO model_quality
SELECT EXTRACT(EPOCH FROM minute_start) * 1000 - {horizon_ms}, model_version, arm, {measures}
FROM (
    SELECT minute_start, model_version, arm, measure_quality(scores, labels) AS q
    FROM (
        SELECT TUMBLE_START(happened, INTERVAL '1' MINUTE) AS minute_start, model_version, arm,
            ARRAY_AGG(score) AS scores, ARRAY_AGG(label) AS labels
        FROM matured_scores WHERE evaluated
        GROUP BY TUMBLE(happened, INTERVAL '1' MINUTE), model_version, arm
    )
)
"""


def _evaluated(scored_events: Sequence[str]) -> str:
    """The SQL condition of events of these kinds; own kinds, which scores have by name, count as `other`."""
    is_listed = EVENT_KINDS[0] not in scored_events
    names = scored_events if is_listed else [name for name in EVENT_KINDS if name not in scored_events]
    listed = ", ".join(f"'{name}'" for name in names)
    return f"event_name {'IN' if is_listed else 'NOT IN'} ({listed})" if names else "TRUE"


def measure_outcomes(tables: TableEnvironment, settings: Settings, label: Label) -> StatementSet:
    """Build the job over existing tables: `due_scores`, `event_clicks`, `outcomes`, `model_quality`."""
    clicks = settings.clicks
    within_ms = duration_ms(clicks.duplicates_within)
    reader = ReadAmounts(click_topic(settings), label.amounts, within_ms)
    tables.create_temporary_system_function("read_amounts", reader.as_udf())
    tables.create_temporary_system_function("measure_quality", MeasureQuality().as_udf())
    matured = MATURED_SCORES.format(
        least=label.least,
        absent=str(label.absent).upper(),
        evaluated=_evaluated(label.scored_events),
        window=interval(label.horizon_ms - 1),
    )
    # An event that is sent again counts once, and so does an order.
    counted = counted_once("counted_amounts", _COLUMNS, "sent_amounts", "repeat_key", within_ms)
    views = (SENT_AMOUNTS, counted, LOGINS_AMOUNTS if clicks.follow_logins else USERS_AMOUNTS, matured)
    measures = ", ".join(f"q.{name}" for name in MEASURES)
    outcomes = OUTCOMES.format(horizon_ms=label.horizon_ms)
    quality = MODEL_QUALITY.format(horizon_ms=label.horizon_ms, measures=measures)
    return build_job(tables, views, (outcomes, quality), label.meaning)


def score_columns(settings: Settings, label: Label) -> str:
    """The columns of `due_scores`, whose rowtime is when their horizon has passed."""
    # The watermark is the horizon behind that, and so is that of the events' own times.
    behind_ms = label.horizon_ms + duration_ms(settings.event_time.lateness)
    return columns(
        Score,
        "arrival AS PROCTIME()",
        f"due AS TO_TIMESTAMP_LTZ(event_time + {label.horizon_ms}, 3)",
        f"WATERMARK FOR due AS due - {interval(behind_ms)}",
    )


def kafka_tables(settings: Settings, label: Label) -> list[str]:
    """CREATE TABLE statements of the topics that the job reads and writes."""
    topics = settings.topics
    scores = kafka_source(settings, topics.scores) | {"format": "json"}
    clicks = kafka_source(settings, topics.clicks) | {"format": "raw"}
    quality = kafka_sink(settings, topics.model_quality) | {"format": "json"}
    return [
        create_table("due_scores", score_columns(settings, label), scores),
        *click_tables(settings, clicks),
        create_table("outcomes", columns(Outcome), keyed_sink(settings, topics.outcomes)),
        create_table("model_quality", columns(ModelQuality), quality),
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Check settings, label and topics, then submit the job."""
    options = parse_arguments("measure_outcomes", "Submit the job that joins scores with their outcomes.", arguments)
    try:
        settings = outcome_settings(load_settings(options.conf, options.overrides))
        label = find_label(settings.outcomes.label, options.conf.with_name(LABELS_FILE))
        if label.session_gap is not None:
            raise ConfigError(
                f"key outcomes.label: {settings.outcomes.label} has a session_gap, and this job does not follow "
                "sessions: choose a label without, such as `purchase within 30 min`"
            )
        if label.horizon_ms + duration_ms(settings.event_time.lateness) > MAX_INTERVAL_MS:
            raise ConfigError(
                f"key outcomes.label: the horizon of {label.horizon} and event_time.lateness "
                f"({settings.event_time.lateness}) are more than 99 days together"
            )
        if not options.skip_topic_check:
            check_topics(settings, ("clicks", "scores", "outcomes", "model_quality"))
    except (ConfigError, LabelError, KafkaClientError) as error:
        sys.exit(f"measure_outcomes: {error}")
    submit(
        settings,
        kafka_tables(settings, label),
        lambda tables: measure_outcomes(tables, settings, label),
        options.explain,
        str(label),
    )


if __name__ == "__main__":
    main()
