"""The records of the output topics: the only declaration of their fields.

These structs define the JSON Schemas in docs/contracts (tools/json_schemas.py), the columns of Flink's tables
(jobs/common/tables.py), and what each reader of a topic decodes.

- Decoding enforces types, bounds, lengths and patterns, but nothing in `extra_json_schema`. So the contract lists the
  values of an enum, and a reader accepts one that a later release adds.
- The jobs write every field of a record. A field with a default may be missing in records from elsewhere.
- `sql` in a field's `extra` is its SQL type, where that does not follow from its Python type.
"""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, Literal, get_args

import msgspec
from msgspec import UNSET, Meta, UnsetType

from udfs.contracts.packed_events import DEVICES, EVENT_KINDS
from udfs.contracts.rejects import Reason

Arm = Literal["champion", "challenger", "control", "not_eligible"]
ARMS: tuple[Arm, ...] = get_args(Arm)
#: In topic kpis, instead of an arm: the sessions of bots.
BOT = "bot"
#: Of drift, from the least to the most.
Level = Literal["stable", "watch", "alarm"]
LEVELS: tuple[Level, ...] = get_args(Level)
#: Why a feature has no level but stable: drift.unwatched, too few independent rows at training, or in the window.
Unwatched = Literal["setting", "training_rows", "window_rows"]


class ExperimentAction(StrEnum):
    """The recommended action for an experiment."""

    SHIP = "ship"
    STOP = "stop"
    KEEP_RUNNING = "keep_running"
    FIX_FIRST = "fix_first"  # the arms' user counts do not match their shares
    NO_DATA = "no_data"  # no KPI can be measured yet


#: Where a record is: topic, partition, offset.
Position = tuple[str, int, int]


def _one_of(values: Iterable[str]) -> dict[str, Any]:
    return {"enum": [str(value) for value in values]}


Count = Annotated[int, Meta(ge=0)]
Share = Annotated[float, Meta(ge=0, le=1)]

UserId = Annotated[str, Meta(min_length=1, max_length=128, description="the user's id; also the record's key")]
EventId = Annotated[str, Meta(max_length=128, description="id of the click's event, if it has one")]
EventName = Annotated[
    str,
    Meta(
        description="GA4 event name, or that of an own kind (clicks.declaration); other for any other name",
        extra_json_schema={"examples": list(EVENT_KINDS)},
    ),
]
EventTime = Annotated[int, Meta(description="when the click happened, ms since 1970-01-01 UTC")]
ModelScore = Annotated[Share, Meta(description="the model's probability of its label", extra={"sql": "FLOAT"})]
Decision = Annotated[
    bool, Meta(description="whether to act: the score is at least model.threshold; in control, the rule decides")
]
DecidingArm = Annotated[str, Meta(description="the user's arm", extra_json_schema=_one_of(ARMS))]
ModelVersion = Annotated[str, Meta(min_length=1, description="version of the bundle that computed the score")]
Propensity = Annotated[
    Share,
    Meta(
        description="probability with which the user was put into the arm, 1 for not_eligible; null where the arm's "
        "model failed and another one stood in, and in records of earlier releases"
    ),
]
ScoredAt = Annotated[int, Meta(description="when it was scored, ms since 1970-01-01 UTC")]
SourcePartition = Annotated[int, Meta(ge=0, description="partition of the click", extra={"sql": "INT"})]
SourceOffset = Annotated[int, Meta(ge=0, description="offset of the click")]


class Score(msgspec.Struct, gc=False, kw_only=True):
    """A score of one accepted click."""

    user_id: UserId
    event_id: EventId | None
    event_name: EventName
    event_time: EventTime
    score: ModelScore
    decision: Decision
    arm: DecidingArm
    model_version: ModelVersion
    propensity: Propensity | None = None
    scored_at: ScoredAt
    source_partition: SourcePartition
    source_offset: SourceOffset


class FeatureVector(msgspec.Struct, gc=False):
    """The exact feature vector that was scored."""

    user_id: UserId
    event_id: EventId | None
    event_time: EventTime
    score: ModelScore
    model_version: ModelVersion
    feature_schema_hash: Annotated[
        str, Meta(description="as in the bundle's manifest, whose features name the columns")
    ]
    features: Annotated[bytes, Meta(description="float32 values, little endian, in base64; NaN is missing")]
    source_partition: SourcePartition
    source_offset: SourceOffset


class ShadowScores(msgspec.Struct, gc=False):
    """The scores that the shadow models give one click."""

    user_id: UserId
    event_id: EventId | None
    event_time: EventTime
    model_version: ModelVersion
    score: Annotated[Share, Meta(description="score of the serving model", extra={"sql": "FLOAT"})]
    shadow_versions: Annotated[
        list[Annotated[str, Meta(min_length=1)]], Meta(min_length=1, description="versions of the shadows")
    ]
    shadow_scores: Annotated[
        list[Share], Meta(min_length=1, description="score of each shadow, at the index of its version")
    ]
    scored_at: ScoredAt
    source_partition: SourcePartition
    source_offset: SourceOffset


RejectedTopic = Annotated[str, Meta(description="topic of the rejected record")]
RejectedPartition = Annotated[int, Meta(ge=0, description="partition of the rejected record", extra={"sql": "INT"})]
RejectedOffset = Annotated[int, Meta(ge=0, description="offset of the rejected record")]


class DeadLetter(msgspec.Struct, gc=False):
    """A rejected record and the reason."""

    topic: RejectedTopic
    partition: RejectedPartition
    offset: RejectedOffset
    timestamp: Annotated[
        str,
        Meta(
            pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+Z$",
            description="Kafka timestamp of the rejected record",
            extra_json_schema={"format": "date-time"},
        ),
    ]
    reason: Annotated[
        str, Meta(description="code of the violated rule, stable across releases", extra_json_schema=_one_of(Reason))
    ]
    message: Annotated[str, Meta(description="the violation in detail, with the path of the field")]
    original: (
        Annotated[bytes, Meta(description="the record's bytes in base64; null for a record without a value")] | None
    ) = None

    @property
    def position(self) -> Position:
        return self.topic, self.partition, self.offset

    @property
    def timestamp_ms(self) -> int:
        """Kafka's timestamp of the rejected record, in milliseconds."""
        return round(datetime.fromisoformat(self.timestamp).timestamp() * 1000)


class RequeuedLetter(msgspec.Struct, gc=False):
    """A dead letter whose record was sent back to its topic."""

    topic: RejectedTopic
    partition: RejectedPartition
    offset: RejectedOffset
    reason: Annotated[
        str, Meta(description="reason of the rejection, as in dead_letters", extra_json_schema=_one_of(Reason))
    ]
    requeued_at: Annotated[int, Meta(description="when the record was sent back, ms since 1970-01-01 UTC")]


class Outcome(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """The outcome of one score, once the label horizon has passed."""

    user_id: UserId
    event_id: EventId | None = None
    event_name: EventName
    event_time: EventTime
    score: ModelScore
    decision: Decision
    arm: DecidingArm
    model_version: ModelVersion
    label: Annotated[bool, Meta(description="whether the outcome followed within the horizon")]
    evaluated: Annotated[
        bool, Meta(description="whether the label applies to this kind of event; model quality ignores the others")
    ]
    matured_at: Annotated[int, Meta(description="event_time plus the horizon, ms since 1970-01-01 UTC")]
    source_partition: SourcePartition
    source_offset: SourceOffset


class ModelQuality(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """Quality of the scores of one minute, model and arm."""

    event_minute: Annotated[int, Meta(description="minute of the clicks, ms since 1970-01-01 UTC")]
    model_version: ModelVersion
    arm: DecidingArm
    scores: Annotated[int, Meta(ge=1, description="number of evaluated outcomes")]
    roc_auc: Annotated[Share, Meta(description="area under the ROC curve; null if all labels are equal")] | None = None
    average_precision: Annotated[Share, Meta(description="average precision; null if all labels are equal")] | None = (
        None
    )
    log_loss: Annotated[float, Meta(ge=0, description="mean logarithmic loss, in nats")]
    mean_score: Annotated[
        Share, Meta(description="mean of the scores; equals the positive rate if the scores are calibrated")
    ]
    positive_rate: Annotated[Share, Meta(description="share of the labels that are positive")]


class Session(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """One closed session."""

    user_id: UserId
    # Without a default: sessions from a file without arms can't be used to evaluate an experiment.
    arm: (
        Annotated[
            str,
            Meta(
                description="of the session's first score; null when nothing was scored",
                extra_json_schema=_one_of(ARMS),
            ),
        ]
        | None
    )
    model_version: (
        Annotated[str, Meta(description="of the session's first score; null when nothing was scored")] | None
    ) = None
    started_at: Annotated[int, Meta(description="time of its first event, ms since 1970-01-01 UTC")]
    ended_at: Annotated[int, Meta(description="time of its last event, ms since 1970-01-01 UTC")]
    events: Annotated[int, Meta(ge=1, description="number of events")]
    pages: Annotated[
        Count, Meta(description="number of distinct page locations, or of distinct items where events have no location")
    ]
    view_promotions: Annotated[Count, Meta(description="number of view_promotion events")]
    select_promotions: Annotated[Count, Meta(description="number of select_promotion events")]
    add_to_carts: Annotated[Count, Meta(description="number of add_to_cart events")]
    begin_checkouts: Annotated[Count, Meta(description="number of begin_checkout events")]
    form_starts: Annotated[Count, Meta(description="number of form_start events")]
    form_submits: Annotated[Count, Meta(description="number of form_submit events")]
    purchases: Annotated[Count, Meta(description="number of purchase events")]
    revenue: Annotated[float, Meta(ge=0, description="total value of its purchases")]
    # Missing in records of earlier releases:
    is_bot: Annotated[
        bool, Meta(description="whether it has more events than a person's, or faster ones; see bots in the settings")
    ] = False
    device: (
        Annotated[
            str,
            Meta(
                description="device category of its first event that has one; null without any",
                extra_json_schema=_one_of(DEVICES[1:]),
            ),
        ]
        | None
    ) = None
    top_score: (
        Annotated[
            Share,
            Meta(description="highest score of its clicks; null when nothing was scored", extra={"sql": "FLOAT"}),
        ]
        | None
    ) = None
    propensity: (
        Annotated[
            Share,
            Meta(description="of the session's first score; null where that has none, and when nothing was scored"),
        ]
        | None
    ) = None


KpiName = Annotated[str, Meta(min_length=1, description="name of the KPI, as in conf/kpis.yaml")]


class KpiValue(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """One KPI for one window and arm; for promotion KPIs also for one placement."""

    window_start: Annotated[int, Meta(description="when the window begins, ms since 1970-01-01 UTC")]
    window: Annotated[str, Meta(description="length of the window", extra_json_schema=_one_of(("minute", "hour")))]
    arm: (
        Annotated[
            str,
            Meta(
                description="bot for all sessions of bots; null for other sessions without a score",
                extra_json_schema=_one_of((*ARMS, BOT)),
            ),
        ]
        | None
    ) = None
    placement: Annotated[str, Meta(description="position on the page; null if the KPI is of whole sessions")] | None = (
        None
    )
    kpi: KpiName
    numerator: Annotated[float, Meta(description="as in conf/kpis.yaml")]
    denominator: Annotated[float, Meta(ge=0, description="as in conf/kpis.yaml")]
    value: (
        Annotated[float, Meta(description="numerator divided by denominator; null if the denominator is 0")] | None
    ) = None


class ExperimentResult(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """The effect of a treatment on one KPI, at the end of an interval."""

    at: Annotated[int, Meta(description="end of the interval, by the job's clock, ms since 1970-01-01 UTC")]
    treatment: Annotated[str, Meta(description="arm whose effect is measured", extra_json_schema=_one_of(ARMS))]
    baseline: Annotated[str, Meta(description="arm it is compared with", extra_json_schema=_one_of(ARMS))]
    treatment_version: (
        Annotated[str, Meta(description="version of the model in the treatment arm; null in control")] | None
    ) = None
    baseline_version: (
        Annotated[str, Meta(description="version of the model in the baseline arm; null in control")] | None
    ) = None
    kpi: KpiName
    treatment_users: Annotated[
        Count, Meta(description="number of users in the treatment arm; who was there in two stretches counts twice")
    ]
    baseline_users: Annotated[
        Count, Meta(description="number of users in the baseline arm; who was there in two stretches counts twice")
    ]
    moved_users: Annotated[Count, Meta(description="number of users who were in both arms of a stretch")] = 0
    no_data: Annotated[str, Meta(description="why the KPI has no effect yet; null if it has one")] | None = None
    cap: (
        Annotated[float, Meta(description="what a session counts for at most in the numerator; null without a limit")]
        | None
    ) = None
    treatment_value: Annotated[float, Meta(description="KPI of the treatment arm")] | None = None
    baseline_value: Annotated[float, Meta(description="KPI of the baseline arm")] | None = None
    difference: Annotated[float, Meta(description="treatment minus baseline, after CUPED")] | None = None
    low: (
        Annotated[float, Meta(description="lower end of the confidence interval, which is valid at every look")] | None
    ) = None
    high: (
        Annotated[float, Meta(description="upper end of the confidence interval, which is valid at every look")] | None
    ) = None
    relative_difference: (
        Annotated[float, Meta(description="difference as a share of the baseline")] | None | UnsetType
    ) = UNSET  # in records of earlier releases
    relative_low: (
        Annotated[float, Meta(description="lower end of its interval, which is valid at every look")] | None
    ) = None
    relative_high: (
        Annotated[float, Meta(description="upper end of its interval, which is valid at every look")] | None
    ) = None
    p_value: Annotated[Share, Meta(description="p-value of the difference, valid at every look")] | None = None
    is_better: Annotated[
        bool, Meta(description="whether the KPI is significantly better, after Holm's correction over all KPIs")
    ]
    is_worse: Annotated[
        bool, Meta(description="whether the KPI is significantly worse, after Holm's correction over all KPIs")
    ]
    guardrail: (
        Annotated[
            str,
            Meta(
                description="state of the KPI's guardrail; null if it has none",
                extra_json_schema=_one_of(("held", "broken", "open")),
            ),
        ]
        | None
    ) = None
    sample_ratio_p: (
        Annotated[
            Share, Meta(description="p-value of the user counts against the ledger's shares, valid at every look")
        ]
        | None
    ) = None
    action: (
        Annotated[
            str,
            Meta(description="recommendation for the whole experiment", extra_json_schema=_one_of(ExperimentAction)),
        ]
        | UnsetType  # in records of earlier releases
    ) = UNSET
    decision: Annotated[
        str,
        Meta(
            description="the recommendation in words, with the reason",
            extra_json_schema={"pattern": "^(Ship|Stop|Keep running|Fix first|No data)"},
        ),
    ]


class FeatureDrift(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """A feature in a window, compared with training."""

    name: Annotated[str, Meta(description="name of the feature")]
    psi: Annotated[float, Meta(ge=0, description="Population Stability Index against training, corrected for chance")]
    level: Annotated[str, Meta(description="drift level of this feature", extra_json_schema=_one_of(LEVELS))]
    unwatched: (
        Annotated[
            str,
            Meta(
                description="why the feature can have no level but stable; null for a watched one",
                extra_json_schema=_one_of(get_args(Unwatched)),
            ),
        ]
        | None
    ) = None  # missing in records of earlier releases
    missing: Annotated[Share, Meta(description="share of rows without a value")]
    unseen: Annotated[Share, Meta(description="share of rows with a value that training never saw")]
    shares: Annotated[
        list[Share], Meta(description="share of the known values in each bin of the bundle's reference.json")
    ]


class DriftWindow(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """Features and scores of one window, compared with training."""

    window_start: Annotated[int, Meta(description="start of the event-time window, ms since 1970-01-01 UTC")]
    window_end: Annotated[int, Meta(description="end of the window (exclusive), ms since 1970-01-01 UTC")]
    model_version: ModelVersion
    rows: Annotated[int, Meta(ge=1, description="number of vectors in the window")]
    level: Annotated[str, Meta(description="level of the worst feature", extra_json_schema=_one_of(LEVELS))]
    score_psi: Annotated[
        float,
        Meta(ge=0, description="Population Stability Index of the score against training, corrected for chance"),
    ]
    label_rate: (
        Annotated[
            Share,
            Meta(description="positive share of the evaluated outcomes that matured in the window; null without any"),
        ]
        | None
    ) = None
    moved: Annotated[list[str], Meta(description="names of the features at watch or alarm, by decreasing index")]
    features: Annotated[
        list[FeatureDrift], Meta(min_length=1, description="one entry per feature, and one named score for the score")
    ]


#: By the role of the topic, as in the settings.
RECORDS: dict[str, type[msgspec.Struct]] = {
    "scores": Score,
    "dead_letters": DeadLetter,
    "feature_log": FeatureVector,
    "shadow_scores": ShadowScores,
    "requeued": RequeuedLetter,
    "outcomes": Outcome,
    "model_quality": ModelQuality,
    "sessions": Session,
    "kpis": KpiValue,
    "experiments": ExperimentResult,
    "drift": DriftWindow,
}

to_json = msgspec.json.Encoder().encode

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_MS, _LAST_MS = (
    (end.replace(tzinfo=UTC) - _EPOCH) // timedelta(milliseconds=1) for end in (datetime.min, datetime.max)
)


def iso_time(time_ms: int) -> str:
    """Format a time in ISO 8601, UTC; times before year 1 or after 9999, which Kafka allows, are clamped to that range.

    >>> iso_time(1_800_000_000_123), iso_time(2**62)
    ('2027-01-15T08:00:00.123Z', '9999-12-31T23:59:59.999Z')
    """
    time = _EPOCH + timedelta(milliseconds=min(max(time_ms, _FIRST_MS), _LAST_MS))
    return time.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"
