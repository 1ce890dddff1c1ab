"""Count what all users do, and publish the counts as tables, from which the score job fills columns of events.

    flink run -pym jobs.publish_population -pyfs dist/*.whl --conf conf/mine.yaml

clicks ── decode ── entries ──▶ by user, at most 50 ──▶ by key and fold of users ──▶ table ──▶ population.dir
                                └────────── windows of the declaration's population.every ──────────┘

The job runs in the time of arrival, Kafka's timestamp. The table of a window is the one before it, decayed, and what
the window adds. docs/population.md describes the tables.
"""

import sys
from collections.abc import Mapping, Sequence

from pyflink.table import StatementSet, TableEnvironment

from jobs.common.event_time import MAX_INTERVAL_MS, interval
from jobs.common.settings import ConfigError, Settings, click_topic, load_settings, population_settings
from jobs.common.statements import build_job
from jobs.common.submission import parse_arguments, submit
from jobs.common.tables import KAFKA_METADATA, create_table, kafka_source
from jobs.common.topics import check_topics
from udfs.config.durations import duration_ms
from udfs.contracts.outputs import iso_time
from udfs.flink.population import FindEntries, PublishTable, entry_names
from udfs.kafka.errors import KafkaClientError
from udfs.mapping.topic import ClickTopic
from udfs.population.publishing import last_published
from udfs.population.store import PopulationError, TableStore
from udfs.population.tables import MOST_PER_USER, counted_by

ARRIVING_CLICKS = """
    payload BYTES,
    record_time TIMESTAMP_LTZ(3) {timestamp},
    WATERMARK FOR record_time AS record_time - {lateness}
"""

PUBLISHED_COLUMNS = "boundary_ms BIGINT, is_new BOOLEAN"

ENTRIES = """
CREATE TEMPORARY VIEW entries AS
SELECT user_id, entry, record_time
FROM (
    SELECT e.user_id AS user_id, ARRAY[{entries}] AS entries, record_time
    FROM (SELECT find_entries(payload, CAST(record_time AS TIMESTAMP(3))) AS e, record_time FROM arriving_clicks)
    WHERE e.user_id IS NOT NULL
)
CROSS JOIN UNNEST(entries) AS of_event (entry)
WHERE entry IS NOT NULL
"""

BY_USER = """
CREATE TEMPORARY VIEW by_user AS
SELECT entry, window_time AS arrived, LEAST(COUNT(*), {most}) AS events
FROM TABLE(TUMBLE(TABLE entries, DESCRIPTOR(record_time), {every}))
GROUP BY window_start, window_end, window_time, user_id, entry
"""

BY_ENTRY = """
CREATE TEMPORARY VIEW by_entry AS
SELECT entry, window_time AS arrived, SUM(events) AS events
FROM TABLE(TUMBLE(TABLE by_user, DESCRIPTOR(arrived), {every}))
GROUP BY window_start, window_end, window_time, entry
"""

PUBLISHED = """
INSERT INTO published
SELECT p.boundary_ms, p.is_new
FROM (
    SELECT publish_table(EXTRACT(EPOCH FROM window_end) * 1000, entries, events) AS p
    FROM (
        SELECT window_end, ARRAY_AGG(entry) AS entries, ARRAY_AGG(events) AS events
        FROM TABLE(TUMBLE(TABLE by_entry, DESCRIPTOR(arrived), {every}))
        GROUP BY window_start, window_end
    )
)
"""


def publish_population(tables: TableEnvironment, settings: Settings, topic: ClickTopic) -> StatementSet:
    """Build the job over existing tables: `arriving_clicks`, `published`."""
    population = settings.population
    functions = {
        "find_entries": FindEntries(topic),
        "publish_table": PublishTable(topic, population.dir, duration_ms(population.keep)),
    }
    for name, function in functions.items():
        tables.create_temporary_system_function(name, function.as_udf())
    every = interval(topic.layout.publication.every_ms)
    views = (
        ENTRIES.format(entries=", ".join(f"e.{name}" for name in entry_names(topic))),
        BY_USER.format(every=every, most=MOST_PER_USER),
        BY_ENTRY.format(every=every),
    )
    return build_job(tables, views, (PUBLISHED.format(every=every),), counted_by(topic.layout))


def click_columns(settings: Settings, metadata: Mapping[str, str] = KAFKA_METADATA) -> str:
    """The columns of `arriving_clicks`, whose rowtime is Kafka's timestamp."""
    lateness = interval(duration_ms(settings.event_time.lateness))
    return ARRIVING_CLICKS.format(timestamp=metadata["timestamp"], lateness=lateness)


def job_tables(settings: Settings) -> list[str]:
    """CREATE TABLE statements of the topic that the job reads, and of its rows, which nobody needs."""
    clicks = kafka_source(settings, settings.topics.clicks) | {"format": "raw"}
    return [
        create_table("arriving_clicks", click_columns(settings), clicks),
        create_table("published", PUBLISHED_COLUMNS, {"connector": "blackhole"}),
    ]


def check_tables(settings: Settings, topic: ClickTopic) -> str:
    """Check that the job can go on from the newest table; returns what it does. Raises ConfigError, PopulationError."""
    publication, uri = topic.layout.publication, settings.population.dir
    if publication.every_ms > MAX_INTERVAL_MS or publication.every_ms % 1000:
        raise ConfigError(
            f"key clicks.declaration: population.every: must be whole seconds, at most {MAX_INTERVAL_MS // 86_400_000} "
            f"d (got {publication.every_ms} ms)"
        )
    newest = last_published(TableStore(uri), topic.layout)
    goes_on = "begins" if newest is None else f"goes on from that of {iso_time(newest.boundary_ms)}"
    return f"a table every {publication.every_ms // 1000} s in {uri}, {goes_on}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Check settings, tables and topic, then submit the job."""
    options = parse_arguments("publish_population", "Submit the job that counts what all users do.", arguments)
    try:
        settings = population_settings(load_settings(options.conf, options.overrides))
        topic = click_topic(settings)
        what = check_tables(settings, topic)
        if not options.skip_topic_check:
            check_topics(settings, ("clicks",))
    except (ConfigError, PopulationError, KafkaClientError) as error:
        sys.exit(f"publish_population: {error}")
    submit(
        settings,
        job_tables(settings),
        lambda tables: publish_population(tables, settings, topic),
        options.explain,
        what,
    )


if __name__ == "__main__":
    main()
