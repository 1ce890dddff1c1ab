"""The pure functions as Flink calls them: Arrow batches in, columns and metrics out. The only PyFlink file in udfs."""

import builtins
import sys
import time

import numpy as np
import pandas as pd
import pyarrow as pa
from apache_beam.runners.worker import statesampler
from pyflink.table import DataTypes
from pyflink.table.types import DataType, to_arrow_type
from pyflink.table.udf import FunctionContext, ScalarFunction

from udfs.deployment import Scored
from udfs.events import ClickDecoder, ClickLimits
from udfs.metrics import LATENCY_BOUNDS_MS, cumulative_counts
from udfs.profiles import ProfileDecoder
from udfs.rejects import Reason
from udfs.sampling import in_sample
from udfs.serving import Serving, follow


def _row(**fields):
    return DataTypes.ROW([DataTypes.FIELD(name, kind) for name, kind in fields.items()])


DECODED_CLICK = _row(
    user_id=DataTypes.STRING(),
    event=DataTypes.BYTES(),
    event_id=DataTypes.STRING(),
    event_time=DataTypes.BIGINT(),
    record_ms=DataTypes.BIGINT(),
    reason=DataTypes.STRING(),
    message=DataTypes.STRING(),
    original=DataTypes.BYTES(),
)
DECODED_PROFILE = _row(
    user_id=DataTypes.STRING(),
    profile=DataTypes.BYTES(),
    record_ms=DataTypes.BIGINT(),
    reason=DataTypes.STRING(),
    message=DataTypes.STRING(),
    original=DataTypes.BYTES(),
)
SCORED = _row(
    score=DataTypes.FLOAT(),
    decision=DataTypes.BOOLEAN(),
    arm=DataTypes.STRING(),
    model_version=DataTypes.STRING(),
    scored_at=DataTypes.BIGINT(),
    features=DataTypes.BYTES(),
    feature_schema_hash=DataTypes.STRING(),
    shadow_versions=DataTypes.ARRAY(DataTypes.STRING()),
    shadow_scores=DataTypes.ARRAY(DataTypes.FLOAT()),
)


class LatencyMetric:
    """A cumulative latency histogram out of Flink counters `<name>_bucket{le=...}`."""

    def __init__(self, group, name: str):
        labels = [*map(str, LATENCY_BOUNDS_MS), "+Inf"]
        self._buckets = [group.add_group("le", label).counter(f"{name}_bucket") for label in labels]
        self._total = group.counter(f"{name}_sum")

    def observe(self, latencies_ms: np.ndarray) -> None:
        for bucket, count in zip(self._buckets, cumulative_counts(latencies_ms)):
            bucket.inc(int(count))
        self._total.inc(int(latencies_ms.sum()))

    def observe_one(self, latency_ms: float) -> None:
        self.observe(np.array([latency_ms]))


def _row_series(row_type: DataType, columns: dict[str, list | np.ndarray]) -> pd.Series:
    """A series of rows, backed by Arrow; None and NaN become null.

    A DataFrame would do, but PyFlink searches each of its columns for nulls and converts them one by one, which takes
    longer than decoding. It does the same to a series, unless that is Arrow's already and asks for no mask.
    """
    fields = list(to_arrow_type(row_type))
    arrays = [pa.array(columns[field.name], field.type, from_pandas=True) for field in fields]
    series = pd.Series(pd.arrays.ArrowExtensionArray(pa.StructArray.from_arrays(arrays, fields=fields)))
    series.isnull = _no_mask
    return series


def _no_mask() -> None:
    """Nulls are in the fields of the rows."""


class DecodeClicks(ScalarFunction):
    """Decodes click records; a rejected one has a reason, a message and its original bytes, and nothing else."""

    def __init__(self, limits: ClickLimits):
        self._limits = limits

    def open(self, context: FunctionContext) -> None:
        _stop_state_sampling()
        self._decoder = ClickDecoder(self._limits)
        group = context.get_metric_group().add_group("intent")
        self._rejected = RejectedMetric(group, "clicks")
        self._latency = LatencyMetric(group, "decode_ms")

    def eval(self, payload: pd.Series, record_time: pd.Series) -> pd.Series:
        started = time.perf_counter()
        payloads = payload.tolist()
        record_ms = _milliseconds(record_time)
        clicks = self._decoder.decode(payloads, record_ms.tolist())
        columns = {
            "user_id": clicks.user_ids,
            "event": clicks.events,
            "event_id": clicks.event_ids,
            "event_time": np.array(clicks.event_times_ms, np.int64),
            "record_ms": record_ms,
            **self._rejected.columns(payloads, clicks.reasons, clicks.messages),
        }
        self._latency.observe_one((time.perf_counter() - started) * 1000)
        return _row_series(DECODED_CLICK, columns)


def _milliseconds(times: pd.Series) -> np.ndarray:
    return times.to_numpy("datetime64[ms]").astype(np.int64)


class DecodeProfiles(ScalarFunction):
    """Decodes profile records, like DecodeClicks."""

    def __init__(self, max_record_bytes: int):
        self._max_record_bytes = max_record_bytes

    def open(self, context: FunctionContext) -> None:
        self._decoder = ProfileDecoder(self._max_record_bytes)
        self._rejected = RejectedMetric(context.get_metric_group().add_group("intent"), "profiles")

    def eval(self, key: pd.Series, payload: pd.Series, record_time: pd.Series) -> pd.Series:
        payloads = payload.tolist()
        profiles = self._decoder.decode(key.tolist(), payloads)
        return _row_series(
            DECODED_PROFILE,
            {
                "user_id": profiles.user_ids,
                "profile": profiles.profiles,
                "record_ms": _milliseconds(record_time),
                **self._rejected.columns(payloads, profiles.reasons, profiles.messages),
            },
        )


class RejectedMetric:
    """Counts rejects by reason, and lays out the columns that describe them."""

    def __init__(self, group, topic: str):
        group = group.add_group("topic", topic)
        self._counters = {
            reason.value: group.add_group("reason", reason.value).counter("rejected") for reason in Reason
        }

    def columns(self, payloads: list, reasons: list, messages: list) -> dict[str, list]:
        """The reason, message and original columns: originals travel on only where they are dead letters."""
        originals = [None] * len(payloads)
        for row, reason in enumerate(reasons):
            if reason is not None:
                self._counters[reason].inc()
                originals[row] = payloads[row]
        return {"reason": reasons, "message": messages, "original": originals}


class Score(ScalarFunction):
    """Arm, score and decision of each event, given its user's packed history (whose last record is the event)."""

    def __init__(self, serving: Serving, user_share: float):
        self._serving = serving
        self._user_share = user_share

    def open(self, context: FunctionContext) -> None:
        _restore_print()  # before numba is imported, for the first features
        self._follower = follow(self._serving)
        self._deployment = self._follower.current
        self._batch_size = 0
        self._group = context.get_metric_group().add_group("intent")
        self._scored = self._group.counter("scored")
        self._event_to_score = LatencyMetric(self._group, "event_to_score_ms")
        self._predict = LatencyMetric(self._group, "predict_ms")
        self._group.gauge("batch_size", lambda: self._batch_size)
        self._group.gauge("ledger_entry", lambda: self._follower.number)
        self._group.gauge("models_refused", lambda: self._follower.refused)
        self._group.gauge("shadow_batches_missed", lambda: self._deployment.shadow_batches_missed)
        self._shown: set[str] = set()
        self._show_models()

    def close(self) -> None:
        self._follower.stop()

    def eval(self, user_id, is_event, history, lifetime_events, first_seen_ms, profile, record_ms) -> pd.Series:
        """A row that is no event (a profile update) comes back with nothing but nulls."""
        started = time.perf_counter()
        self._take_over()
        size = len(is_event)
        columns = {field.name: np.full(size, None, object) for field in SCORED}
        columns["score"] = np.full(size, np.nan, np.float32)
        columns["decision"] = np.zeros(size, bool)
        columns["scored_at"] = np.zeros(size, np.int64)
        rows = np.flatnonzero(is_event.to_numpy())
        if rows.size:
            users = user_id.to_numpy()[rows]
            scored = self._deployment.score(
                users.tolist(),
                history.to_numpy()[rows].tolist(),
                lifetime_events.to_numpy()[rows],
                first_seen_ms.to_numpy()[rows],
                profile.to_numpy()[rows].tolist(),
            )
            scored_at = time.time_ns() // 1_000_000
            columns["score"][rows] = scored.score
            columns["decision"][rows] = scored.decision
            columns["scored_at"][rows] = scored_at
            self._describe(columns, rows, scored)
            if self._user_share > 0:
                self._log_features(columns, rows, users, scored)
            self._count(scored_at - record_ms.to_numpy()[rows], (time.perf_counter() - started) * 1000)
        return _row_series(SCORED, columns)

    def _take_over(self) -> None:
        """Between two batches: what the follower has ready serves from here on."""
        newest = self._follower.current
        if newest is not self._deployment:
            self._deployment.close()
            self._deployment = newest
            self._show_models()

    def _show_models(self) -> None:
        """A gauge for each model: 1 while it serves."""
        for version in set(self._deployment.rollout.versions) - self._shown:
            self._shown.add(version)
            group = self._group.add_group("version", version)
            group.gauge("model", lambda version=version: int(version in self._deployment.rollout.versions))

    def _describe(self, columns: dict[str, np.ndarray], rows: np.ndarray, scored: Scored) -> None:
        arms = self._deployment.arms
        columns["arm"][rows] = np.array([arm.name for arm in arms], object)[scored.arm]
        columns["model_version"][rows] = np.array([arm.version for arm in arms], object)[scored.arm]
        if scored.shadows:
            versions, scores = list(scored.shadows), np.stack(list(scored.shadows.values()), 1)
            for position, row in enumerate(rows):
                columns["shadow_versions"][row] = versions
                columns["shadow_scores"][row] = scores[position]

    def _log_features(
        self, columns: dict[str, np.ndarray], rows: np.ndarray, users: np.ndarray, scored: Scored
    ) -> None:
        """The vectors that the models of the arms were given, of the users in the sample."""
        sampled = np.array([in_sample(user, self._user_share) for user in users], bool)
        for arm, manifest in enumerate(self._deployment.manifests):
            chosen = np.flatnonzero(sampled & (scored.arm == arm))
            if chosen.size:
                vectors = self._deployment.vectors(manifest.version, scored.features[chosen])
                for row, vector in zip(rows[chosen], vectors):
                    columns["features"][row] = vector.tobytes()
                columns["feature_schema_hash"][rows[chosen]] = manifest.feature_schema_hash

    def _count(self, latencies_ms: np.ndarray, predict_ms: float) -> None:
        self._batch_size = len(latencies_ms)
        self._scored.inc(len(latencies_ms))
        self._event_to_score.observe(latencies_ms)
        self._predict.observe_one(predict_ms)


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
