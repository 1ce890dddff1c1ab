"""The jobs' configuration, checked as a whole: YAML files, overridden by the environment, overridden by --set."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
import yaml
from msgspec import Meta
from msgspec.structs import replace

from udfs.config.durations import Duration, Moment, duration_ms
from udfs.config.overrides import parse_value, split_override
from udfs.config.reading import DuplicateKeyError, in_words, parse_yaml
from udfs.config.text import END, one_line
from udfs.config.variables import expand_variables, is_secret, refuse_written_secrets
from udfs.contracts.clicks import ClickLimits
from udfs.contracts.currencies import Currencies, CurrencyCode, Rate
from udfs.contracts.event_layout import EventLayout
from udfs.features.declaration import Declaration
from udfs.features.declaration_file import STANDARD, DeclarationError, load_declaration
from udfs.features.user_slots import head_type, ring_bytes
from udfs.kafka.topic_name import TopicName
from udfs.mapping.definition import MappingError, load_mapping
from udfs.mapping.topic import ClickTopic
from udfs.measurement.bots import Bots
from udfs.models.signatures import PublicKey

if TYPE_CHECKING:
    from udfs.formats.record_format import RecordFormat

ENVIRONMENT_PREFIX = "INTENT_"
TEMPLATE = Path("conf", "local.yaml")  # to copy for your own settings
OPEN_SECTIONS = (
    "kafka",
    "flink",
)  # their keys belong to Kafka and Flink, and hold dots themselves; null takes one back

SECTIONS_WITH_SECRETS = (*OPEN_SECTIONS, "schema_registry")

LEAST_MS = 100_000_000_000  # a time in ms is later, one in seconds earlier

COUNTED_MS = 5_000  # what jobs.watch_drift counts at once

FOREVER = "36500 d"  # a limit that no record reaches

DECODERS_PER_SLOT = 2  # of the score job: one of clicks, one of profiles
LARGEST_MEMORY_BYTES = (1 << 31) - 1  # of a worker: what Java maps at once

ComparedArm = Literal["champion", "challenger", "control"]
Positive = Annotated[int, Meta(ge=1)]
Share = Annotated[float, Meta(ge=0, le=1)]
JobName = Annotated[str, Meta(pattern="^[A-Za-z0-9._-]{1,100}" + END, title="name")]
Option = str | int | float | bool


class ConfigError(ValueError):
    """A configuration that can't be used; the message is one line that names the file, the key and the rule."""


class Section(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """A part of the configuration. Fields without a default must be given."""


class JobSettings(Section):
    name: JobName
    parallelism: Positive


class TopicNames(Section):
    clicks: TopicName
    profiles: TopicName
    scores: TopicName
    dead_letters: TopicName
    feature_log: TopicName
    shadow_scores: TopicName
    outcomes: TopicName
    model_quality: TopicName
    sessions: TopicName
    kpis: TopicName
    requeued: TopicName
    experiments: TopicName
    drift: TopicName
    mapped_clicks: TopicName


class SourceSettings(Section):
    group_id: Annotated[str, Meta(min_length=1)]
    start: Literal["committed", "earliest", "latest"]
    bounded: bool
    discovery: Duration


class ClickSettings(Section):
    duplicates_within: Duration
    follow_logins: bool
    declaration: str | None = None
    mapping: str | None = None
    currency: CurrencyCode | None = None
    exchange_rates: dict[CurrencyCode, Rate] | None = None


class SchemaRegistrySettings(Section):
    request_timeout: Duration
    give_up_after: Duration
    url: str | None = None
    credentials: str | None = None
    ca_certificate: str | None = None
    client_certificate: str | None = None
    client_key: str | None = None


class DecodeSettings(Section):
    max_record_bytes: Positive
    max_behind: Duration
    max_ahead: Duration
    format: Literal["json", "avro", "protobuf"]
    schema: str | None = None
    message: str | None = None


class StateSettings(Section):
    backend: Literal["rocksdb", "hashmap"]
    ttl: Duration
    history_length: Annotated[int, Meta(ge=1, le=1024)]
    new_columns: Literal["refuse", "empty"]


class CheckpointSettings(Section):
    interval: Duration
    timeout: Duration
    dir: str | None = None


class ExecutionSettings(Section):
    latency_budget: Duration
    buffer_timeout: Duration


class WorkerSettings(Section):
    batch_rows: Annotated[int, Meta(ge=1, le=8192)]
    batch_bytes: Annotated[int, Meta(ge=65_536, le=268_435_456)]
    linger: Duration
    cached_users: Positive
    memory_dir: Annotated[str, Meta(title="absolute path")]
    start_timeout: Duration
    answer_timeout: Duration


class BackgroundSettings(Section):
    bundle_size: Positive
    bundle_time: Duration
    buffer_timeout: Duration


class DeliverySettings(Section):
    guarantee: Literal["at-least-once", "exactly-once"]
    transaction_timeout: Duration


class ModelSettings(Section):
    bundle: Annotated[str, Meta(min_length=1)]
    threshold: Share
    threads: Positive
    engine: Literal["auto", "native", "onnx"]
    poll: Duration
    shadow_budget: Duration
    registry: str | None = None
    trusted_keys: tuple[PublicKey, ...] = ()


class FeatureLogSettings(Section):
    user_share: Share


class ArchiveSettings(Section):
    name: JobName
    interval: Duration
    parallelism: Positive
    dir: str | None = None


class EventTimeSettings(Section):
    lateness: Duration
    idle: Duration


class OutcomeSettings(Section):
    name: JobName
    parallelism: Positive
    label: Annotated[str, Meta(min_length=1)]


class SessionSettings(Section):
    name: JobName
    parallelism: Positive


class DriftSettings(Section):
    name: JobName
    parallelism: Positive
    window: Duration
    slide: Duration
    watch: Annotated[float, Meta(gt=0)]
    alarm: Annotated[float, Meta(gt=0)]
    unwatched: tuple[str, ...]


class PopulationSettings(Section):
    name: JobName
    parallelism: Positive
    keep: Duration
    idle: Duration
    poll: Duration
    dir: str | None = None


class ExperimentSettings(Section):
    name: JobName
    parallelism: Positive
    treatment: ComparedArm
    baseline: ComparedArm
    interval: Duration
    start: Moment | None = None
    shares: dict[str, Annotated[float, Meta(gt=0, le=1)]] | None = None


class Settings(Section):
    """Everything a data engineer tunes; conf/base.yaml describes each key."""

    job: JobSettings
    topics: TopicNames
    source: SourceSettings
    clicks: ClickSettings
    decode: DecodeSettings
    schema_registry: SchemaRegistrySettings
    state: StateSettings
    checkpoints: CheckpointSettings
    execution: ExecutionSettings
    workers: WorkerSettings
    background: BackgroundSettings
    delivery: DeliverySettings
    model: ModelSettings
    feature_log: FeatureLogSettings
    archive: ArchiveSettings
    event_time: EventTimeSettings
    outcomes: OutcomeSettings
    sessions: SessionSettings
    bots: Bots
    drift: DriftSettings
    experiments: ExperimentSettings
    population: PopulationSettings
    kafka: dict[str, Option | None]
    flink: dict[str, Option | None]


def load_settings(path: Path, overrides: Sequence[str] = (), environment: Mapping[str, str] = os.environ) -> Settings:
    """Read `path`, and under it the file that its `extends` names; lay the environment and then `overrides` over it.

    `overrides` are KEY=VALUE with a dotted key. Raises ConfigError.
    """
    merged = _read_with_base(path, ())
    for section in SECTIONS_WITH_SECRETS:
        refuse_written_secrets(merged.get(section), section, str(path), ConfigError)
    for name, value in sorted(environment.items()):
        if name.startswith(ENVIRONMENT_PREFIX):
            _override(merged, _environment_key(name), parse_value(value, name, ConfigError), name)
    for override in overrides:
        key, value = split_override(override, "state.ttl=30d", ConfigError)
        _override(
            merged,
            tuple(key.split(".", 1) if key.split(".")[0] in OPEN_SECTIONS else key.split(".")),
            parse_value(value, f"--set {key}", ConfigError),
            f"--set {key}",
        )
    expanded = expand_variables(merged, str(path), environment, ConfigError)
    try:
        settings = msgspec.convert(expanded, Settings)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{path}: {in_words(error)}") from None
    _check_together(settings, path)
    return settings


def archive_settings(settings: Settings) -> Settings:
    """The settings for jobs.archive_clicks: its own name, group, parallelism and interval. Raises ConfigError."""
    archive = settings.archive
    if not re.match(r"[a-z0-9+.-]+:/", archive.dir or ""):
        raise ConfigError(
            f"key archive.dir: expected a URI such as s3://bucket/archive or file:///data, got {archive.dir}"
        )
    named = _named(settings, archive)
    return replace(named, checkpoints=replace(settings.checkpoints, interval=archive.interval))


def outcome_settings(settings: Settings) -> Settings:
    """The settings for jobs.measure_outcomes."""
    return _in_event_time(_named(settings, settings.outcomes))


def session_settings(settings: Settings) -> Settings:
    """The settings for jobs.measure_sessions."""
    return _in_event_time(_named(settings, settings.sessions))


def drift_settings(settings: Settings) -> Settings:
    """The settings for jobs.watch_drift. Raises ConfigError."""
    drift = settings.drift
    if settings.feature_log.user_share == 0:
        raise ConfigError("key feature_log.user_share: must be above 0 (got 0): drift is measured on the feature log")
    slide_ms = duration_ms(drift.slide)
    if slide_ms == 0 or slide_ms % COUNTED_MS:
        raise ConfigError(f"key drift.slide: must be a positive multiple of {COUNTED_MS // 1000} s (got {drift.slide})")
    if duration_ms(drift.window) == 0 or duration_ms(drift.window) % slide_ms:
        raise ConfigError(
            f"key drift.window: must be a positive multiple of drift.slide, {drift.slide} (got {drift.window})"
        )
    if drift.alarm < drift.watch:
        raise ConfigError(f"key drift.alarm: must be at least drift.watch, {drift.watch} (got {drift.alarm})")
    unknown = [name for name in drift.unwatched if name not in feature_declaration(settings)]
    if unknown:
        raise ConfigError(
            f"key drift.unwatched: unknown feature {unknown[0]}; `intent features list` lists all features"
        )
    return _in_event_time(_named(settings, drift))


def experiment_settings(settings: Settings) -> Settings:
    """The settings for jobs.watch_experiments. Raises ConfigError.

    It starts at the earliest session, or from a savepoint: all that it knows of users is in its state.
    """
    if settings.experiments.start is None and settings.model.registry is None:
        raise ConfigError(
            "key model.registry: must be set (got null): its ledger says when an experiment began and at which shares; "
            "for a replay, set experiments.start and experiments.shares instead"
        )
    named = _named(settings, settings.experiments)
    return replace(named, source=replace(named.source, start="earliest"))


def population_settings(settings: Settings) -> Settings:
    """The settings for jobs.publish_population. Raises ConfigError.

    It starts at the earliest click, or from a savepoint: a table that was counted from the middle of its hour on would
    lack the rest. What was published before is not written again.
    """
    population, publication = settings.population, population_layout(settings).publication
    late_ms = sum(map(duration_ms, (settings.event_time.lateness, population.idle, population.poll)))
    if publication.delay_ms <= late_ms:
        raise ConfigError(
            f"key clicks.declaration: population.delay must be more than event_time.lateness + population.idle + "
            f"population.poll, {late_ms // 1000} s (got {publication.delay_ms // 1000} s): clicks would arrive before "
            "the table that training takes them to see"
        )
    if duration_ms(population.keep) < publication.every_ms + publication.delay_ms:
        raise ConfigError(
            f"key population.keep: must be at least population.every + population.delay of the declaration, "
            f"{(publication.every_ms + publication.delay_ms) // 1000} s (got {population.keep}): until then, clicks "
            "see the table before the newest one"
        )
    named = _named(settings, population)
    flink = {"table.exec.source.idle-timeout": population.idle, **settings.flink}
    return replace(named, source=replace(named.source, start="earliest"), flink=flink)


def population_layout(settings: Settings) -> EventLayout:
    """The layout of events, of which some columns hold what the population did. Raises ConfigError."""
    layout = feature_declaration(settings).layout
    if not layout.population_columns:
        raise ConfigError(
            "key clicks.declaration: it has no columns of type population, so there is nothing to publish: "
            "docs/population.md"
        )
    if settings.population.dir is None:
        names = ", ".join(column.name for column in layout.population_columns)
        raise ConfigError(
            f"key population.dir: must be set (got null): the declaration has columns of type population ({names}), "
            "which tables in this directory fill; jobs.publish_population writes them: docs/population.md"
        )
    _check_reachable("population.dir", settings.population.dir, "s3://bucket/population")
    return layout


def _in_event_time(settings: Settings) -> Settings:
    """The settings of a job whose watermarks come from the clicks' event_time, which must be known before decoding.

    If the clicks topic is not in the contract, the job reads the clicks that the score job has made of it.
    """
    if has_foreign_clicks(settings):
        settings = replace(
            settings,
            topics=replace(settings.topics, clicks=settings.topics.mapped_clicks),
            clicks=replace(settings.clicks, mapping=None),
            # The score job has judged the size and the timestamp of the records that they come from.
            decode=replace(
                settings.decode,
                format="json",
                schema=None,
                message=None,
                max_behind=FOREVER,
                max_record_bytes=LARGEST_MEMORY_BYTES,
            ),
            schema_registry=replace(settings.schema_registry, url=None),
        )
    return replace(settings, flink={"table.exec.source.idle-timeout": settings.event_time.idle, **settings.flink})


def _named(
    settings: Settings,
    section: ArchiveSettings
    | OutcomeSettings
    | SessionSettings
    | DriftSettings
    | ExperimentSettings
    | PopulationSettings,
) -> Settings:
    """The settings with the name, group and parallelism of another job."""
    return replace(
        settings,
        job=replace(settings.job, name=section.name, parallelism=section.parallelism),
        source=replace(settings.source, group_id=section.name),
    )


def click_topic(settings: Settings) -> ClickTopic:
    """How the records of the clicks topic are read. Raises ConfigError for a file that can't be used."""
    path = settings.clicks.mapping
    try:
        mapping = None if path is None else load_mapping(Path(path)).for_topic()
    except MappingError as error:
        raise ConfigError(f"key clicks.mapping: {error}") from None
    shop, rates = settings.clicks.currency, settings.clicks.exchange_rates
    currencies = None if shop is None else Currencies(shop=shop, rates=rates or {})
    layout = feature_declaration(settings).layout
    return ClickTopic(click_limits(settings), mapping, _record_format(settings), currencies, layout)


def feature_declaration(settings: Settings) -> Declaration:
    """The declaration of features, with the shop's own kinds and columns of events. Raises ConfigError."""
    path = settings.clicks.declaration
    try:
        return STANDARD if path is None else load_declaration(Path(path), with_functions=False)
    except DeclarationError as error:
        raise ConfigError(f"key clicks.declaration: {error}") from None


def _record_format(settings: Settings) -> "RecordFormat | None":
    """The format of the clicks topic; None for plain JSON. Raises ConfigError."""
    decode, registry = settings.decode, settings.schema_registry
    if decode.format == "json" and registry.url is None and decode.schema is None and not decode.message:
        return None
    from udfs.formats.record_format import FormatError, RegistryOptions, record_format  # protobuf takes 130 ms

    try:
        options = None if registry.url is None else msgspec.convert(_given(registry), RegistryOptions)
        schema = None if decode.schema is None else Path(decode.schema)
        return record_format(decode.format, options, schema, decode.message or "")
    except msgspec.ValidationError as error:
        raise ConfigError(f"key schema_registry: {in_words(error)}") from None
    except FormatError as error:
        raise ConfigError(str(error)) from None


def _given(section: Section) -> dict[str, Any]:
    return {key: value for key, value in msgspec.to_builtins(section).items() if value is not None}


def registry_uri(settings: Settings) -> str | None:
    """The registry that a job follows; None without one. Raises ConfigError for a path that workers would not find."""
    uri = settings.model.registry
    if uri:
        _check_reachable("model.registry", uri, "s3://bucket/registry")
    return uri


def _check_reachable(key: str, place: str, example: str) -> None:
    """Raise ConfigError unless a directory has the same name for workers."""
    if not re.match(r"/|[a-z0-9+.-]+:/", place):
        raise ConfigError(
            f"key {key}: expected an absolute path or a URL such as {example}, because workers run in other "
            f"directories (got {place})"
        )


def has_foreign_clicks(settings: Settings) -> bool:
    """Whether the records of the clicks topic are not clicks in the contract, as plain JSON."""
    return (
        settings.clicks.mapping is not None
        or settings.decode.format != "json"
        or settings.schema_registry.url is not None
    )


def reads_mapped_clicks(settings: Settings) -> bool:
    """Whether these settings of a measuring job read the clicks that the score job has made of foreign records."""
    return settings.topics.clicks == settings.topics.mapped_clicks


def click_limits(settings: Settings) -> ClickLimits:
    """The limits on accepted clicks."""
    decode = settings.decode
    return ClickLimits(decode.max_record_bytes, duration_ms(decode.max_behind), duration_ms(decode.max_ahead))


def shared_memory_bytes(settings: Settings) -> int:
    """The bytes that each task slot of the score job needs in workers.memory_dir, to within some hundred KiB."""
    keyed = 2 if settings.clicks.follow_logins else 1  # one scores, one follows logins
    return (DECODERS_PER_SLOT + keyed) * 2 * settings.workers.batch_bytes + keyed * _cached_bytes(settings)


def _cached_bytes(settings: Settings) -> int:
    """The bytes of the cached users of a score worker."""
    layout = feature_declaration(settings).layout
    return settings.workers.cached_users * (
        head_type(layout).itemsize + ring_bytes(settings.state.history_length, layout.dtype)
    )


def printable(settings: Settings) -> dict[str, Any]:
    """The settings as plain data, secrets masked."""
    plain = msgspec.to_builtins(settings)
    for section in SECTIONS_WITH_SECRETS:
        plain[section] = {key: "******" if is_secret(key) else value for key, value in plain[section].items()}
    return plain


def _read_with_base(path: Path, seen: tuple[Path, ...]) -> dict:
    if path.resolve() in seen:
        raise ConfigError(f"{path}: key extends: the file extends itself")
    try:
        content = parse_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(_missing_file(path, seen)) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    except DuplicateKeyError as error:
        raise ConfigError(f"{path}: {error}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not YAML: {one_line(error)}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected sections such as kafka: and state:, got {type(content).__name__}")
    base = content.pop("extends", None)
    if base is None:
        return content
    if "\0" in str(base):
        raise ConfigError(f"{path}: key extends: {base!r} is not a path")
    return _merge(_read_with_base(path.parent / str(base), (*seen, path.resolve())), content)


def _missing_file(path: Path, extended_by: tuple[Path, ...]) -> str:
    """The message for a settings file that does not exist, with the remedy."""
    if extended_by:
        return f"{path}: no such file; key extends of {extended_by[-1]} names it"
    where = "" if path.is_absolute() else f" in {Path.cwd()}"
    is_template = path.resolve().parts[-2:] == TEMPLATE.parts
    advice = "" if is_template else f", such as a copy of {TEMPLATE} in the project's directory {TEMPLATE.parent}"
    return f"{path}: no such file{where}; pass the path of a settings file{advice}"


def _merge(under: dict, over: dict) -> dict:
    merged = dict(under)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _environment_key(name: str) -> tuple[str, ...]:
    section, _, rest = name.removeprefix(ENVIRONMENT_PREFIX).lower().partition("__")
    return (section, rest.replace("_", ".")) if section in OPEN_SECTIONS else (section, rest)


def _override(merged: dict, key: tuple[str, ...], value: Any, origin: str) -> None:
    if len(key) != 2 or not all(key):
        raise ConfigError(f"{origin}: expected section.key, for example state.ttl")
    section = merged.setdefault(key[0], {})
    if not isinstance(section, dict):
        raise ConfigError(f"{origin}: {key[0]} is not a section")
    section[key[1]] = value


def _check_together(settings: Settings, path: Path) -> None:
    """Check what depends on more than one key."""
    if not settings.kafka.get("bootstrap.servers"):
        raise ConfigError(f"{path}: key kafka.bootstrap.servers: missing; name the brokers as host:port,host:port")
    if (zone := settings.flink.get("table.local-time-zone") or "UTC") != "UTC":
        raise ConfigError(
            f"{path}: key flink.table.local-time-zone: must be UTC (got {zone}): jobs compute with times in UTC, and "
            "in another zone each click would look hours late or early"
        )
    topics = msgspec.to_builtins(settings.topics)
    for name, topic in topics.items():
        twin = next((other for other in topics if other != name and topics[other] == topic), None)
        if twin:
            raise ConfigError(
                f"{path}: key topics.{name}: {topic} is also topics.{twin}; each needs a topic of its own"
            )
    for key in (
        "workers.start_timeout",
        "workers.answer_timeout",
        "background.bundle_time",
        "checkpoints.interval",
        "checkpoints.timeout",
        "state.ttl",
        "archive.interval",
        "event_time.idle",
        "experiments.interval",
        "model.poll",
        "population.idle",
        "population.poll",
    ):
        section, name = key.split(".")
        if duration_ms(getattr(getattr(settings, section), name)) == 0:
            raise ConfigError(f"{path}: key {key}: must be more than 0")
    if settings.clicks.exchange_rates and settings.clicks.currency is None:
        raise ConfigError(f"{path}: key clicks.exchange_rates: requires clicks.currency, which the rates convert to")
    workers = settings.workers
    if not workers.memory_dir.startswith("/"):
        raise ConfigError(f"{path}: key workers.memory_dir: expected an absolute path, got {workers.memory_dir!r}")
    worker_bytes = 2 * workers.batch_bytes + _cached_bytes(settings)
    if worker_bytes > LARGEST_MEMORY_BYTES:
        raise ConfigError(
            f"{path}: key workers.cached_users: {workers.cached_users} users would take {worker_bytes >> 20} MiB of "
            f"shared memory in each score worker, and at most {LARGEST_MEMORY_BYTES >> 20} MiB are possible"
        )
    try:
        _check_experiments(settings.experiments)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    if settings.delivery.guarantee == "exactly-once":
        open_ms = duration_ms(settings.checkpoints.interval) + duration_ms(settings.checkpoints.timeout)
        if duration_ms(settings.delivery.transaction_timeout) <= open_ms:
            raise ConfigError(
                f"{path}: key delivery.transaction_timeout: {settings.delivery.transaction_timeout} is not more than "
                f"checkpoints.interval + checkpoints.timeout ({open_ms // 1000} s): a transaction would expire before "
                "its checkpoint can complete, and its scores would be lost"
            )


def _check_experiments(experiments: ExperimentSettings) -> None:
    """Check which arms are compared, and the start and the shares of a replay. Raises ConfigError."""
    arms, start, shares = (experiments.treatment, experiments.baseline), experiments.start, experiments.shares
    if arms[0] == arms[1]:
        raise ConfigError(f"key experiments.treatment: {arms[0]} is also experiments.baseline; choose two arms")
    for name, other in (("start", "shares"), ("shares", "start")):
        if getattr(experiments, name) is None and getattr(experiments, other) is not None:
            raise ConfigError(
                f"key experiments.{name}: must be set together with experiments.{other} (got null): set both for a "
                "replay, or neither to follow the ledger of model.registry"
            )
    if start is None or shares is None:
        return
    if isinstance(start, int) and start < LEAST_MS:
        raise ConfigError(
            f"key experiments.start: expected milliseconds since 1970, got {start}, which is in seconds: multiply it "
            "by 1000, or write a time such as 2026-05-01T08:00:00Z"
        )
    for arm in arms:
        if arm not in shares:
            raise ConfigError(f"key experiments.shares: {arm} is missing; set a user share for both arms")
    for arm in shares:
        if arm not in arms:
            raise ConfigError(
                f"key experiments.shares: {arm} is neither experiments.treatment nor experiments.baseline; leave it out"
            )
    total = sum(shares.values())
    if total > 1 + 1e-9:
        raise ConfigError(
            f"key experiments.shares: must add up to at most 1 (got {total:g}); set each arm's share of the users"
        )
