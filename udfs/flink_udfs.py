"""What jobs call from SQL: functions that decode clicks and profiles, and that score; with their metrics."""

import builtins
import sys
import time
from datetime import datetime

import numpy as np
from apache_beam.runners.worker import statesampler
from pyflink.common import Row
from pyflink.table import DataTypes
from pyflink.table.udf import FunctionContext

from udfs.deployment import Scored
from udfs.events import ClickDecoder, ClickLimits
from udfs.flink_columns import Column, ColumnFunction, Profile, milliseconds, row_type
from udfs.history import last_event_name
from udfs.metrics import LatencyMetric, RejectedMetric
from udfs.profiles import ProfileDecoder
from udfs.rollout import CHAMPION
from udfs.sampling import in_sample
from udfs.serving import Serving, follow

#: What a decoded row has beside what it decoded: its time, and of a rejected one why, and its bytes.
_OF_RECORD = {
    "record_ms": DataTypes.BIGINT(),
    "reason": DataTypes.STRING(),
    "message": DataTypes.STRING(),
    "original": DataTypes.BYTES(),
}


class DecodeClicks(ColumnFunction):
    """Decodes click records; a rejected one has a reason, a message and its original bytes, and nothing else."""

    result = row_type(
        user_id=DataTypes.STRING(),
        event=DataTypes.BYTES(),
        event_id=DataTypes.STRING(),
        event_time=DataTypes.BIGINT(),
        **_OF_RECORD,
    )

    def __init__(self, limits: ClickLimits, profile: Profile):
        super().__init__(profile)
        self._limits = limits

    def open(self, context: FunctionContext) -> None:
        _stop_state_sampling()
        self._decoder = ClickDecoder(self._limits)
        group = self.metric_group(context)
        self._rejected = RejectedMetric(group, "clicks")
        group = group.add_group("profile", self._profile.name)
        self._decoding = LatencyMetric(group, "decode_ms")
        self._event_to_decode = LatencyMetric(group, "event_to_decode_ms")

    def columns(self, payloads: list, record_ms: np.ndarray) -> dict[str, Column]:
        started = time.perf_counter()
        clicks = self._decoder.decode(payloads, record_ms.tolist())
        columns = {
            "user_id": clicks.user_ids,
            "event": clicks.events,
            "event_id": clicks.event_ids,
            "event_time": np.array(clicks.event_times_ms, np.int64),
            "record_ms": record_ms,
            **self._rejected.columns(payloads, clicks.reasons, clicks.messages),
        }
        self._decoding.observe((time.perf_counter() - started) * 1000)
        self._event_to_decode.observe(*(_now_ms() - record_ms).tolist())
        return columns

    def row(self, payload: bytes | None, record_time: datetime) -> Row:
        started = time.perf_counter()
        record_ms = milliseconds(record_time)
        clicks = self._decoder.decode([payload], [record_ms])
        rejected = self._rejected.columns([payload], clicks.reasons, clicks.messages)
        self._decoding.observe((time.perf_counter() - started) * 1000)
        self._event_to_decode.observe(_now_ms() - record_ms)
        return Row(
            clicks.user_ids[0],
            clicks.events[0],
            clicks.event_ids[0],
            clicks.event_times_ms[0],
            record_ms,
            *(column[0] for column in rejected.values()),
        )


class DecodeProfiles(ColumnFunction):
    """Decodes profile records, like DecodeClicks."""

    result = row_type(
        user_id=DataTypes.STRING(),
        profile=DataTypes.BYTES(),
        **_OF_RECORD,
    )

    def __init__(self, max_record_bytes: int, profile: Profile):
        super().__init__(profile)
        self._max_record_bytes = max_record_bytes

    def open(self, context: FunctionContext) -> None:
        self._decoder = ProfileDecoder(self._max_record_bytes)
        self._rejected = RejectedMetric(self.metric_group(context), "profiles")

    def columns(self, keys: list, payloads: list, record_ms: np.ndarray) -> dict[str, Column]:
        profiles = self._decoder.decode(keys, payloads)
        return {
            "user_id": profiles.user_ids,
            "profile": profiles.profiles,
            "record_ms": record_ms,
            **self._rejected.columns(payloads, profiles.reasons, profiles.messages),
        }


class Score(ColumnFunction):
    """Arm, score and decision of each event, given its user's packed history (whose last record is the event)."""

    result = row_type(
        event_name=DataTypes.STRING(),
        score=DataTypes.FLOAT(),
        decision=DataTypes.BOOLEAN(),
        arm=DataTypes.STRING(),
        model_version=DataTypes.STRING(),
        scored_at=DataTypes.BIGINT(),
        features=DataTypes.BYTES(),
        feature_schema_hash=DataTypes.STRING(),
        shadow_versions=DataTypes.ARRAY(DataTypes.STRING()),  # empty without shadows: thread mode fails on a null array
        shadow_scores=DataTypes.ARRAY(DataTypes.FLOAT()),
    )

    def __init__(self, serving: Serving, user_share: float, budget_ms: int, profile: Profile):
        super().__init__(profile)
        self._serving = serving
        self._user_share = user_share
        self._budget_ms = budget_ms

    def open(self, context: FunctionContext) -> None:
        _restore_print()  # before numba is imported, for the first features
        self._follower = follow(self._serving)
        self._deployment = self._follower.current
        self._batch_size = 0
        self._group = group = self.metric_group(context)
        self._scored = group.counter("scored")
        group.gauge("batch_size", lambda: self._batch_size)
        group.gauge("ledger_entry", lambda: self._follower.number)
        group.gauge("models_refused", lambda: self._follower.refused)
        group.gauge("shadow_batches_missed", lambda: self._deployment.shadow_batches_missed)
        group.gauge("remote_fallbacks", lambda: self._deployment.fallbacks)
        self._latency_group = group.add_group("profile", self._profile.name)
        self._predicting = LatencyMetric(self._latency_group, "predict_ms")
        self._event_to_score: dict[str, LatencyMetric] = {}  # by version
        self._show_models()

    def close(self) -> None:
        self._follower.stop()
        self._deployment.close()

    def columns(self, user_ids: list, is_event: np.ndarray, *of_users: Column) -> dict[str, Column]:
        """A row that is no event (a profile update) comes back without a model."""
        self._take_over()
        if is_event.all():
            return self._score(user_ids, *of_users)
        rows = np.flatnonzero(is_event)
        columns: dict[str, Column] = {name: np.full(len(is_event), None) for name in self.result.names}
        columns["score"] = np.zeros(len(is_event), np.float32)  # not null, where thread mode fails on a FLOAT
        if rows.size:
            scored = self._score(*(_at(column, rows) for column in (user_ids, *of_users)))
            for name, column in scored.items():
                columns[name][rows] = np.fromiter(column, columns[name].dtype, len(rows))
        return columns

    def _score(
        self,
        user_ids: list,
        histories: list,
        lifetime_events: np.ndarray,
        first_seen_ms: np.ndarray,
        profiles: list,
        record_ms: np.ndarray,
    ) -> dict[str, Column]:
        """The columns of n events."""
        started = time.perf_counter()
        deployment = self._deployment
        scored = deployment.score(user_ids, histories, lifetime_events, first_seen_ms, profiles)
        nothing = [None] * len(user_ids)
        scored_at = _now_ms()
        columns: dict[str, Column] = {
            "event_name": list(map(last_event_name, histories)),
            "score": scored.score,
            "decision": scored.decision,
            "arm": deployment.arm_names[scored.arm],
            "model_version": scored.version,
            "scored_at": [scored_at] * len(user_ids),
            "features": nothing,
            "feature_schema_hash": nothing,
            "shadow_versions": nothing,
            "shadow_scores": nothing,
        }
        if scored.shadows:
            columns["shadow_versions"] = [list(scored.shadows)] * len(user_ids)
            columns["shadow_scores"] = np.stack(list(scored.shadows.values()), 1).tolist()
        if self._user_share > 0:
            columns |= self._logged(user_ids, scored)
        self._scored.inc(len(user_ids))
        self._batch_size = len(user_ids)
        self._predicting.observe((time.perf_counter() - started) * 1000)
        latencies_ms = scored_at - record_ms
        for version in set(scored.version):
            self._event_to_score[version].observe(*latencies_ms[scored.version == version].tolist())
        return columns

    def row(
        self,
        user_id: str,
        is_event: bool,
        history: bytes,
        lifetime_events: int,
        first_seen_ms: int,
        profile: bytes | None,
        record_ms: int,
    ) -> Row:
        self._take_over()
        deployment = self._deployment
        if not is_event or not deployment.is_one_model or self._user_share > 0:
            return super().row(user_id, is_event, history, lifetime_events, first_seen_ms, profile, record_ms)
        started = time.perf_counter()
        score, decision = deployment.score_one(history, lifetime_events, first_seen_ms, profile)
        scored_at = _now_ms()
        arm = deployment.arms[CHAMPION]
        self._batch_size = 1
        self._scored.inc()
        self._predicting.observe((time.perf_counter() - started) * 1000)
        self._event_to_score[arm.version].observe(scored_at - record_ms)
        return Row(last_event_name(history), score, decision, arm.name, arm.version, scored_at, None, None, (), ())

    def _take_over(self) -> None:
        """Between two batches: what the follower has ready serves from here on."""
        newest = self._follower.current
        if newest is not self._deployment:
            self._deployment.close()
            self._deployment = newest
            self._show_models()

    def _show_models(self) -> None:
        """For each model a gauge, 1 while it serves, when it was made, and the latency of its scores."""
        for version in self._deployment.versions - self._event_to_score.keys():
            group = self._group.add_group("version", version)
            group.gauge("model", lambda version=version: int(version in self._deployment.versions))
            created_s = int(self._deployment.manifest(version).created_at.timestamp())
            group.gauge("model_created_seconds", lambda created_s=created_s: created_s)
            group = self._latency_group.add_group("version", version)
            self._event_to_score[version] = LatencyMetric(group, "event_to_score_ms", self._budget_ms)

    def _logged(self, user_ids: list, scored: Scored) -> dict[str, Column]:
        """The vectors that the models were given, of the users in the sample, and what they are."""
        sampled = np.array([in_sample(user, self._user_share) for user in user_ids], bool)
        features, schemas = np.full(len(user_ids), None), np.full(len(user_ids), None)
        for version in set(scored.version):
            rows = np.flatnonzero(sampled & (scored.version == version))
            vectors = self._deployment.vectors(version, scored.features[rows])
            features[rows] = np.fromiter((vector.tobytes() for vector in vectors), object, len(rows))
            schemas[rows] = self._deployment.manifest(version).feature_schema_hash
        return {"features": features, "feature_schema_hash": schemas}


def _at(column: Column, rows: np.ndarray) -> Column:
    return column[rows] if isinstance(column, np.ndarray) else [column[row] for row in rows]


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _restore_print() -> None:
    """PyFlink replaces `builtins.print` in its workers by one that looks up `print` where there is none."""
    worker = sys.modules.get("pyflink.fn_execution.beam.beam_sdk_worker_main")
    if worker is not None and not hasattr(worker, "print"):
        worker.print = builtins.print


def _stop_state_sampling() -> None:
    """Keep Beam from profiling each bundle, for a metric that Flink does not show.

    A thread samples what the worker does and sleeps in between, for a sixth of the bundle's time so far and at least
    2 ms; the end of a bundle waits for the end of that sleep.
    """
    statesampler.StateSampler.start = statesampler.set_current_tracker
