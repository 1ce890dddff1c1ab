"""Measure the drift of features and scores from their model's training data, per minute.

    flink run -pym jobs.watch_drift -pyfs dist/*.whl --conf conf/local.yaml

feature_log ── cells ──┐
outcomes ── labels ────┴▶ counts of 5 s, by model ──▶ sum of the last 10 min, every minute ── index ──▶ drift

The job runs in event time; its state are cells, counts and labels, kept by Flink's own windows.
"""

import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from pyflink.table import StatementSet, TableEnvironment

from jobs.common.event_time import interval, timed_columns
from jobs.common.settings import COUNTED_MS, ConfigError, Settings, drift_settings, load_settings, registry_uri
from jobs.common.statements import build_job
from jobs.common.submission import parse_arguments, submit
from jobs.common.tables import create_table, kafka_sink, kafka_source
from jobs.common.topics import check_topics
from udfs.config.durations import duration_ms
from udfs.contracts.outputs import FeatureVector, Outcome
from udfs.flink.drift import CountCells, FindCells, JudgeDrift
from udfs.kafka.errors import KafkaClientError
from udfs.measurement.drift import REFERENCE_FILE, Thresholds
from udfs.models.bundle import BundleError, read_listed_file, read_manifest
from udfs.rollout.drift_references import References, decode_reference
from udfs.rollout.registry import Registry, RegistryError

# The JSON of a DriftWindow: its features are an array of rows, which Python can't hand to SQL.
DRIFT_COLUMNS = "record STRING"

OBSERVED = """
CREATE TEMPORARY VIEW observed AS
SELECT model_version, happened, f.cells AS cells, CAST(NULL AS BOOLEAN) AS label
FROM (SELECT find_cells(model_version, features, score) AS f, model_version, happened FROM timed_vectors)
WHERE f.cells IS NOT NULL
UNION ALL
SELECT model_version, happened, CAST(NULL AS BYTES), label FROM timed_outcomes WHERE evaluated
"""

COUNTED = """
CREATE TEMPORARY VIEW counted AS
SELECT model_version, happened, c.counts AS counts, labels, positives
FROM (
    SELECT model_version, happened, count_cells(cells) AS c, labels, positives
    FROM (
        SELECT model_version, window_time AS happened, ARRAY_AGG(cells) FILTER (WHERE cells IS NOT NULL) AS cells,
            COUNT(label) AS labels, COUNT(CASE WHEN label THEN 1 END) AS positives
        FROM TABLE(TUMBLE(TABLE observed, DESCRIPTOR(happened), {counted}))
        GROUP BY window_start, window_end, window_time, model_version
    )
)
"""

DRIFT = """
INSERT INTO drift
SELECT j.record
FROM (
    SELECT judge_drift(EXTRACT(EPOCH FROM window_start) * 1000, EXTRACT(EPOCH FROM window_end) * 1000, model_version,
        counts, labels, positives) AS j
    FROM (
        SELECT window_start, window_end, model_version, ARRAY_AGG(counts) FILTER (WHERE counts IS NOT NULL) AS counts,
            SUM(labels) AS labels, SUM(positives) AS positives
        FROM TABLE(HOP(TABLE counted, DESCRIPTOR(happened), {slide}, {window}))
        GROUP BY window_start, window_end, model_version
    )
)
WHERE j.record IS NOT NULL
"""


def watch_drift(tables: TableEnvironment, settings: Settings, references: Callable[[], References]) -> StatementSet:
    """Build the job over existing tables: `timed_vectors`, `timed_outcomes`, `drift`; each worker makes references."""
    drift = settings.drift
    thresholds = Thresholds(drift.watch, drift.alarm, drift.unwatched)
    functions = {
        "find_cells": FindCells(references),
        "count_cells": CountCells(),
        "judge_drift": JudgeDrift(references, thresholds),
    }
    for name, function in functions.items():
        tables.create_temporary_system_function(name, function.as_udf())
    counted = COUNTED.format(counted=interval(COUNTED_MS))
    window, slide = (interval(duration_ms(length)) for length in (drift.window, drift.slide))
    return build_job(tables, (OBSERVED, counted), (DRIFT.format(window=window, slide=slide),))


def vector_columns(settings: Settings) -> str:
    """The columns of `timed_vectors`, whose rowtime is that of the click."""
    return timed_columns(FeatureVector, "event_time", settings)


def outcome_columns(settings: Settings) -> str:
    """The columns of `timed_outcomes`, whose rowtime is when the outcome was known."""
    return timed_columns(Outcome, "matured_at", settings)


def kafka_tables(settings: Settings) -> list[str]:
    """CREATE TABLE statements of the topics that the job reads and writes."""
    topics = settings.topics
    json = {"format": "json", "properties.isolation.level": "read_committed"}
    vectors, outcomes = (kafka_source(settings, topic) | json for topic in (topics.feature_log, topics.outcomes))
    return [
        create_table("timed_vectors", vector_columns(settings), vectors),
        create_table("timed_outcomes", outcome_columns(settings), outcomes),
        create_table("drift", DRIFT_COLUMNS, kafka_sink(settings, topics.drift) | {"format": "raw"}),
    ]


def find_references(settings: Settings) -> Callable[[], References]:
    """A factory of the references in each worker: the registry's, whose champion has to have one, or the bundle's.

    Raises BundleError, RegistryError and ConfigError.
    """
    model, retry_s = settings.model, duration_ms(settings.model.poll) / 1000
    if registry := registry_uri(settings):
        make = partial(References, {}, registry, retry_s, trusted_keys=model.trusted_keys)
        make().read(Registry(registry).newest().rollout.champion)
        return make
    directory = Path(model.bundle)

    def read(name: str) -> bytes:
        return (directory / name).read_bytes()

    manifest = read_manifest(read, model.bundle, model.trusted_keys)
    content = read_listed_file(read, model.bundle, manifest, REFERENCE_FILE)
    known = {manifest.version: decode_reference(content, model.bundle)}
    return partial(References, known, None, retry_s)


def main(arguments: Sequence[str] | None = None) -> None:
    """Check settings, references and topics, then submit the job."""
    options = parse_arguments("watch_drift", "Submit the job that watches features and scores for drift.", arguments)
    try:
        settings = drift_settings(load_settings(options.conf, options.overrides))
        references = find_references(settings)
        if not options.skip_topic_check:
            check_topics(settings, ("feature_log", "outcomes", "drift"))
    except (ConfigError, BundleError, RegistryError, KafkaClientError) as error:
        sys.exit(f"watch_drift: {error}")
    submit(
        settings,
        kafka_tables(settings),
        lambda tables: watch_drift(tables, settings, references),
        options.explain,
        f"windows of {settings.drift.window}",
    )


if __name__ == "__main__":
    main()
