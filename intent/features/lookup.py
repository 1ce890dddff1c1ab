"""A user's vector, looked up where the command line says."""

from dataclasses import dataclass, replace
from pathlib import Path

from intent.features.late_progress import Report
from intent.features.recorded_events import read_recorded
from intent.features.topic_events import read_topics
from intent.features.user_events import JobRules
from intent.features.vector import Vector, vector_of
from jobs.common.population import stored_tables
from jobs.common.settings import Settings, click_topic, feature_declaration, load_settings
from jobs.ops.time_options import time_ms
from udfs.config.durations import duration_ms, now_ms
from udfs.features.declaration import Declaration
from udfs.features.declaration_file import STANDARD, load_declaration
from udfs.mapping.definition import load_mapping
from udfs.models.bundle import Bundle, load_bundle


@dataclass(frozen=True)
class Sources:
    """Where a user's events are, and the features to compute of them."""

    clicks: Path | None = None  # None: the topics
    profiles: Path | None = None
    mapping: Path | None = None
    conf: Path | None = None
    overrides: tuple[str, ...] = ()
    bundle: Path | None = None
    declaration: Path | None = None


def look_up(user_id: str, at: str | None, sources: Sources, report: Report) -> Vector:
    """The vector at the user's newest event, or the newest one that is not later than a time.

    Raises NoEventError, KafkaClientError, and for what can't be read ConfigError, SourceError and so on.
    """
    until_ms = None if at is None else _moment_ms(at)
    settings = None if sources.conf is None else load_settings(sources.conf, sources.overrides)
    bundle = None
    if sources.bundle is not None:
        bundle = load_bundle(sources.bundle, None if settings is None else settings.state.history_length)
    declaration = _declaration(sources, settings, bundle)
    rules = _rules(settings, declaration, bundle)
    if sources.clicks is None:
        report("reading the topics", None, None)
        events = read_topics(user_id, settings, rules)
    else:
        mappings = None if sources.mapping is None else load_mapping(sources.mapping)
        events = read_recorded(user_id, sources.clicks, rules, report, sources.profiles, mappings)
    report("computing the features", None, None)
    lacking = [] if settings is None else feature_declaration(settings).layout.without(declaration.layout)
    cautions = [
        f"the job does not have {what}: set clicks.declaration in {sources.conf}, and submit the job again"
        for what in lacking
    ]
    events = replace(events, cautions=[*events.cautions, *cautions])
    return vector_of(user_id, events, rules, until_ms, declaration, bundle)


def _moment_ms(text: str) -> int:
    """The time of --at."""
    return int(text) if text.isascii() and text.isdigit() else time_ms(text, "--at", now_ms())


def _declaration(sources: Sources, settings: Settings | None, bundle: Bundle | None) -> Declaration:
    if bundle is not None:
        return bundle.declaration
    if sources.declaration is not None:
        return load_declaration(sources.declaration)
    if settings is None or settings.clicks.declaration is None:
        return STANDARD
    return load_declaration(Path(settings.clicks.declaration))


def _rules(settings: Settings | None, declaration: Declaration, bundle: Bundle | None) -> JobRules:
    """The rules of the job that these features are for: one that packs events in their layout."""
    if settings is not None:
        return JobRules(
            replace(click_topic(settings), layout=declaration.layout),
            settings.state.history_length,
            duration_ms(settings.clicks.duplicates_within),
            settings.clicks.follow_logins,
            stored_tables(settings, declaration.layout),
        )
    rules = JobRules(replace(JobRules().topic, layout=declaration.layout))
    return rules if bundle is None else replace(rules, history_length=bundle.manifest.history_length)
