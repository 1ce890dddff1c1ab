"""A record of each output topic, for tests to change the fields that matter to them."""

from typing import Any

import msgspec

from udfs.contracts.outputs import (
    DeadLetter,
    DriftWindow,
    ExperimentResult,
    FeatureDrift,
    FeatureVector,
    KpiValue,
    ModelQuality,
    Outcome,
    RequeuedLetter,
    Score,
    Session,
    ShadowScores,
)

NOW_MS = 1_800_000_000_000
_OF_CLICK = {"user_id": "ada", "event_id": "e1", "event_time": NOW_MS, "source_partition": 0, "source_offset": 7}
_SCORED = {**_OF_CLICK, "score": 0.3, "model_version": "v1"}
_REJECTED = {"topic": "clicks", "partition": 0, "offset": 7, "reason": "invalid_json"}

SAMPLES = {
    "scores": Score(
        **_SCORED, event_name="view_item", decision=False, arm="champion", propensity=0.95, scored_at=NOW_MS + 40
    ),
    "dead_letters": DeadLetter(
        **_REJECTED, timestamp="2027-01-15T08:00:00.000Z", message="Input data was truncated", original=b"{"
    ),
    "feature_log": FeatureVector(**_SCORED, feature_schema_hash="0123", features=b"\0\0\0\0"),
    "shadow_scores": ShadowScores(**_SCORED, shadow_versions=["v2"], shadow_scores=[0.4], scored_at=NOW_MS + 40),
    "requeued": RequeuedLetter(**_REJECTED, requeued_at=NOW_MS),
    "outcomes": Outcome(
        **_SCORED,
        event_name="view_item",
        decision=False,
        arm="champion",
        label=False,
        evaluated=True,
        matured_at=NOW_MS + 1_800_000,
    ),
    "model_quality": ModelQuality(
        event_minute=NOW_MS,
        model_version="v1",
        arm="champion",
        scores=100,
        roc_auc=0.8,
        average_precision=0.3,
        log_loss=0.2,
        mean_score=0.1,
        positive_rate=0.1,
    ),
    "sessions": Session(
        user_id="ada",
        arm="champion",
        model_version="v1",
        started_at=NOW_MS,
        ended_at=NOW_MS + 60_000,
        events=3,
        pages=2,
        view_promotions=0,
        select_promotions=0,
        add_to_carts=1,
        begin_checkouts=1,
        form_starts=0,
        form_submits=0,
        purchases=1,
        revenue=10.0,
        is_bot=False,
        device="mobile",
        top_score=0.25,
        propensity=0.95,
    ),
    "kpis": KpiValue(
        window_start=NOW_MS,
        window="minute",
        arm="champion",
        kpi="conversion_rate",
        numerator=5,
        denominator=100,
        value=0.05,
    ),
    "experiments": ExperimentResult(
        at=NOW_MS,
        treatment="challenger",
        baseline="champion",
        treatment_version="v2",
        baseline_version="v1",
        kpi="conversion_rate",
        treatment_users=100,
        baseline_users=300,
        moved_users=2,
        treatment_value=0.055,
        baseline_value=0.05,
        difference=0.005,
        low=-0.001,
        high=0.011,
        relative_difference=0.1,
        relative_low=-0.02,
        relative_high=0.23,
        p_value=0.2,
        is_better=False,
        is_worse=False,
        guardrail="open",
        sample_ratio_p=0.4,
        action="keep_running",
        decision="Keep running: no significant difference yet.",
    ),
    "drift": DriftWindow(
        window_start=NOW_MS,
        window_end=NOW_MS + 600_000,
        model_version="v1",
        rows=100,
        level="stable",
        score_psi=0.0,
        label_rate=0.1,
        moved=[],
        features=[FeatureDrift(name="score", psi=0.0, level="stable", missing=0.0, unseen=0.0, shares=[0.5, 0.5])],
    ),
}


def sample(role: str, **changes: Any) -> Any:
    """A record of a topic."""
    return msgspec.structs.replace(SAMPLES[role], **changes)


def sample_fields(role: str, **changes: Any) -> dict[str, Any]:
    """The same as its JSON has it; the changes are not checked."""
    return msgspec.to_builtins(SAMPLES[role]) | changes


def feature_drift(
    name: str, level: str = "stable", psi: float = 0.0, shares: tuple[float, ...] = (0.5, 0.5)
) -> FeatureDrift:
    return FeatureDrift(name=name, psi=psi, level=level, missing=0.0, unseen=0.0, shares=list(shares))
