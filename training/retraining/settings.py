"""The settings of retraining: conf/retraining.yaml, checked as a whole."""

import os
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from training.bundles.signing import load_signing_key
from training.modeling.settings import Training, load_training
from training.rollout.admission_settings import DEFAULTS as ADMISSION
from training.rollout.admission_settings import Admission
from udfs.config.durations import Duration, duration_ms
from udfs.config.overrides import parse_value, split_override
from udfs.config.reading import in_words, read_yaml
from udfs.config.variables import expand_variables, refuse_written_secrets
from udfs.kafka.topic_name import TopicName
from udfs.measurement.kpis import KPIS_FILE, Kpi, load_kpis
from udfs.measurement.labels import LABELS_FILE, Label, find_label
from udfs.models.signatures import SignatureError, key_id, public_key_of

RETRAINING_FILE = Path("conf", "retraining.yaml")

Positive = Annotated[int, Meta(ge=1)]
Share = Annotated[float, Meta(ge=0, le=1)]
Text = Annotated[str, Meta(min_length=1)]


class RetrainingError(ValueError):
    """Settings that can't be used; the message is one line that names the file, the key and the rule."""


class _Section(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    pass


class DataSettings(_Section):
    archive: Text
    history: Duration
    context: Duration
    newest: Duration


class GateSettings(_Section):
    margin: Share
    calibration: Share
    positive_users: Positive


class TriggerSettings(_Section):
    drift_windows: Positive
    quality_minutes: Positive
    quality_scores: Positive
    cool_down: Duration


class RampingSettings(_Section):
    auto: bool
    shadow_for: Duration
    step_for: Duration
    at_most: Annotated[float, Meta(gt=0, le=1)]
    every: Duration


class TopicSettings(_Section):
    drift: TopicName
    model_quality: TopicName
    outcomes: TopicName
    shadow_scores: TopicName
    sessions: TopicName


class Retraining(_Section):
    """The settings of retraining, described in conf/retraining.yaml."""

    registry: Text
    work: Text
    training: Text
    label: Text
    give_up: Duration
    every: Duration | None
    data: DataSettings
    gates: GateSettings
    triggers: TriggerSettings
    ramping: RampingSettings
    topics: TopicSettings
    kafka: dict[str, str | int | float | bool | None]
    signing_key: Text | None = None
    admission: Admission = ADMISSION


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """The inputs of a run other than the archive: settings, and the contents of the files that they name."""

    settings: Retraining
    training: Training
    label: Label
    kpis: dict[str, Kpi] = {}  # for automatic ramps

    @property
    def digest(self) -> str:
        """A hash of the settings that a model and its gates depend on."""
        parts = (self.settings.data, self.settings.gates, self.training, self.label)
        return sha256(msgspec.json.encode(parts)).hexdigest()[:16]


def load_recipe(path: Path, overrides: Sequence[str] = (), environment: Mapping[str, str] = os.environ) -> Recipe:
    """Load retraining settings and the training settings, label and KPIs in the same directory. Raises ValueError."""
    settings = load_retraining(path, overrides, environment)
    _check_signing_key(settings, path)
    return Recipe(
        settings=settings,
        training=load_training(path.parent / settings.training),
        label=find_label(settings.label, path.with_name(LABELS_FILE)),
        kpis=load_kpis(path.with_name(KPIS_FILE)) if settings.ramping.auto else {},
    )


def load_retraining(
    path: Path, overrides: Sequence[str] = (), environment: Mapping[str, str] = os.environ
) -> Retraining:
    """Read a YAML file and apply KEY=VALUE overrides; ${NAME} is an environment variable. Raises RetrainingError."""
    content = read_yaml(path, RetrainingError)
    if not isinstance(content, dict):
        raise RetrainingError(f"{path}: expected keys such as registry:, got {type(content).__name__}")
    refuse_written_secrets(content.get("kafka"), "kafka", str(path), RetrainingError)
    for override in overrides:
        _override(content, override)
    expanded = expand_variables(content, str(path), environment, RetrainingError)
    try:
        settings = msgspec.convert(expanded, Retraining)
    except msgspec.ValidationError as error:
        raise RetrainingError(f"{path}: {in_words(error)}") from None
    for key in ("data.history", "data.newest", "give_up", "ramping.every", "every"):
        duration = _value(settings, key)
        if duration is not None and duration_ms(duration) == 0:
            raise RetrainingError(f"{path}: key {key}: must be more than 0")
    if duration_ms(settings.data.newest) >= duration_ms(settings.data.history):
        raise RetrainingError(
            f"{path}: key data.newest: {settings.data.newest} leaves nothing of data.history, {settings.data.history}, "
            "to train on"
        )
    if not settings.kafka.get("bootstrap.servers"):
        raise RetrainingError(f"{path}: key kafka.bootstrap.servers: missing; name the brokers as host:port,host:port")
    return settings


def _check_signing_key(settings: Retraining, path: Path) -> None:
    """Find out before a training takes hours that its model could not be signed, or not be trusted."""
    trusted = settings.admission.trusted_keys
    if settings.signing_key is None:
        if trusted:
            raise RetrainingError(f"{path}: key signing_key: must be set (got null), as admission.trusted_keys is")
        return
    try:
        public_key = public_key_of(load_signing_key(Path(settings.signing_key)))
    except SignatureError as error:
        raise RetrainingError(f"{path}: key signing_key: {error}") from None
    if trusted and public_key not in trusted:
        raise RetrainingError(
            f"{path}: key signing_key: its public key, {key_id(public_key)}, is not among admission.trusted_keys: add "
            f"{public_key}"
        )


def _override(content: dict[str, Any], override: str) -> None:
    key, text = split_override(override, "data.history=14d", RetrainingError)
    *sections, name = key.split(".", 1)  # the keys of Kafka hold dots themselves
    inner = content
    for section in sections:
        inner = inner.setdefault(section, {})
        if not isinstance(inner, dict):
            raise RetrainingError(f"--set {key}: {section} is not a section")
    inner[name] = parse_value(text, f"--set {key}", RetrainingError)


def _value(settings: Retraining, key: str) -> Any:
    for name in key.split("."):
        settings = getattr(settings, name)
    return settings
