"""The handler of the score operator: rows of users in; scores, feature vectors and shadow scores out."""

import time
from functools import cached_property

import numpy as np

from udfs.contracts.outputs import FeatureVector, ShadowScores, to_json
from udfs.features.user_slots import UserSlots, head_type, is_event, user_row_type
from udfs.metrics import LatencyMetric
from udfs.rollout.assignment import in_sample, visitor_id
from udfs.serving.bootstrap import Serving, follow
from udfs.serving.deployment import ScoredEvents
from udfs.workers.metrics import MetricGroup
from udfs.workers.protocol import Rows, SharedMemory, frame_record
from udfs.workers.score_writer import event_names, verdict, write_scores
from udfs.workers.server import Handler

#: The outputs of the score operator.
SCORES, FEATURE_LOG, SHADOW_SCORES = 0, 1, 2


class ScoreClicks(Handler):
    """Keeps users' histories in their slots, and scores each event with the history at its arrival."""

    def __init__(self, serving: Serving, user_share: float, budget_ms: int, duplicates_within_ms: int):
        """Log the feature vectors of `user_share` of the users, and count scores later than `budget_ms`.

        An event that is sent again within `duplicates_within_ms` counts once; 0: each event counts.
        """
        self._serving, self._user_share, self._budget_ms = serving, user_share, budget_ms
        self._duplicates_within_ms = duplicates_within_ms

    def open(self, memory: SharedMemory, metrics: MetricGroup) -> None:
        self._users = UserSlots(
            memory.slot_heads(head_type(self._serving.layout)), memory.slot_bodies(self._serving.layout.dtype)
        )
        self._room = memory.buffer_bytes
        self._names = event_names(dict(self._serving.layout.own_kinds))
        self._row = user_row_type(self._serving.layout.dtype)
        self._poller = follow(self._serving)
        self._deployment = self._poller.current
        self._batch_size = 0
        self._metrics = metrics
        self._scored = metrics.counter("scored")
        self._duplicates = metrics.counter("duplicates")
        metrics.gauge("batch_size", lambda: self._batch_size)
        metrics.gauge("ledger_entry", lambda: self._poller.number)
        metrics.gauge("models_refused", lambda: self._poller.refused)
        metrics.gauge("shadow_batches_missed", lambda: self._deployment.shadow_batches_missed)
        metrics.gauge("remote_fallbacks", lambda: self._deployment.fallbacks)
        self._predicting = LatencyMetric(metrics, "predict_ms")
        self._event_to_score: dict[str, LatencyMetric] = {}  # by version
        self._show_models()

    def close(self) -> None:
        self._poller.stop()
        self._deployment.close()

    def process(self, rows: Rows) -> list[bytes]:
        self._take_over()
        started = time.perf_counter()
        heads = rows.heads(self._row)
        rows.check_tails(self._row.itemsize, heads["key_bytes"])
        features, is_scored = self._deployment.append(heads, rows.slots, self._users, self._duplicates_within_ms)
        self._duplicates.inc(int(np.count_nonzero(is_event(heads) & ~is_scored)))
        if not len(features):
            return []
        events = _Events(rows, heads, is_scored)
        assigned_by = self._users.heads["assigned_by"]
        scored = self._deployment.score_features(lambda: events.assignment_ids(assigned_by), features)
        scored_at = time.time_ns() // 1_000_000
        records = self._scores(events, scored, scored_at)
        if self._user_share > 0:
            records += self._feature_vectors(events, scored)
        if scored.shadows:
            records += self._shadow_scores(events, scored, scored_at)
        self._count(scored, scored_at - events.heads["record_ms"], (time.perf_counter() - started) * 1000)
        return records

    def _scores(self, events: "_Events", scored: ScoredEvents, scored_at: int) -> list[bytes]:
        """The records of scores. The part that arm, version and decision determine is written once per combination."""
        arm_names = self._deployment.arm_names
        versions = list(set(scored.version))
        codes = 2 * scored.arm + scored.decision
        for number, version in enumerate(versions[1:], 1):
            codes += (scored.version == version) * (number * 2 * len(arm_names))
        shared, verdicts = np.unique(codes, return_inverse=True)
        texts = []
        for code in shared.tolist():
            version_and_arm, decision = divmod(code, 2)
            number, arm = divmod(version_and_arm, len(arm_names))
            propensity = self._deployment.propensity(arm, versions[number])
            texts.append(verdict(bool(decision), arm_names[arm], versions[number], propensity, scored_at))
        return write_scores(
            SCORES, events.content, events.id_starts, events.key_starts, events.ends, events.heads, scored.score,
            verdicts, texts, self._names, self._room,
        )  # fmt: skip

    def _feature_vectors(self, events: "_Events", scored: ScoredEvents) -> list[bytes]:
        """The records of the scored feature vectors, of the users in the sample."""
        sampled = np.array([in_sample(user, self._user_share) for user in events.user_ids], bool)
        scores = scored.score.tolist()
        records = []
        for version in sorted(set(scored.version)):
            rows = np.flatnonzero(sampled & (scored.version == version))
            vectors = self._deployment.vectors(version, scored.features[rows])
            schema = self._deployment.manifest(version).feature_schema_hash
            for row, vector in zip(rows.tolist(), vectors):
                logged = FeatureVector(
                    events.user_ids[row], events.event_ids[row], events.times_ms[row], scores[row], version, schema,
                    vector.tobytes(), *events.sources[row],
                )  # fmt: skip
                records.append(frame_record(FEATURE_LOG, to_json(logged), events.keys[row]))
        return records

    def _shadow_scores(self, events: "_Events", scored: ScoredEvents, scored_at: int) -> list[bytes]:
        versions = list(scored.shadows)
        scores_by_row = np.stack(list(scored.shadows.values()), 1).tolist()
        return [
            frame_record(
                SHADOW_SCORES,
                to_json(ShadowScores(user, event_id, time_ms, version, score, versions, shadows, scored_at, *source)),
                key,
            )
            for user, event_id, time_ms, version, score, shadows, source, key in zip(
                events.user_ids,
                events.event_ids,
                events.times_ms,
                scored.version.tolist(),
                scored.score.tolist(),
                scores_by_row,
                events.sources,
                events.keys,
            )  # fmt: skip
        ]

    def _count(self, scored: ScoredEvents, latencies_ms: np.ndarray, took_ms: float) -> None:
        self._batch_size = len(latencies_ms)
        self._scored.inc(self._batch_size)
        self._predicting.observe(took_ms)
        for version in set(scored.version):
            self._event_to_score[version].observe(*latencies_ms[scored.version == version].tolist())

    def _take_over(self) -> None:
        """Switch to the poller's current deployment, between two batches."""
        newest = self._poller.current
        if newest is not self._deployment:
            self._deployment.close()
            self._deployment = newest
            self._show_models()

    def _show_models(self) -> None:
        """Add metrics for each new model: whether it serves, when it was created, and the latency of its scores."""
        for version in self._deployment.versions - self._event_to_score.keys():
            group = self._metrics.add_group("version", version)
            group.gauge("model", lambda version=version: int(version in self._deployment.versions))
            created_s = int(self._deployment.manifest(version).created_at.timestamp())
            group.gauge("model_created_seconds", lambda created_s=created_s: created_s)
            self._event_to_score[version] = LatencyMetric(group, "event_to_score_ms", self._budget_ms)


class _Events:
    """The scored events among the rows of a batch, column by column."""

    def __init__(self, rows: Rows, heads: np.ndarray, is_scored: np.ndarray):
        self.heads = heads[is_scored]
        self.content, self.ends = rows.content, rows.ends[is_scored]
        self.key_starts = self.ends - self.heads["key_bytes"]
        self.id_starts = rows.starts[is_scored] + heads.dtype.itemsize
        self._slots = rows.slots[is_scored]

    @cached_property
    def keys(self) -> list[bytes]:
        return [self.content[start:end] for start, end in zip(self.key_starts.tolist(), self.ends.tolist())]

    @cached_property
    def user_ids(self) -> list[str]:
        return [key.decode() for key in self.keys]

    def assignment_ids(self, assigned_by: np.ndarray) -> list[str]:
        """The ids that users are assigned to arms by, given `assigned_by` of all slots."""
        hashes = assigned_by[self._slots].tolist()
        return [user if hash_ == 0 else visitor_id(hash_) for user, hash_ in zip(self.user_ids, hashes)]

    @cached_property
    def event_ids(self) -> list[str | None]:
        columns = self.id_starts.tolist(), self.key_starts.tolist(), self.heads["has_event_id"].tolist()
        return [self.content[start:end].decode() if has_id else None for start, end, has_id in zip(*columns)]

    @cached_property
    def times_ms(self) -> list[int]:
        return self.heads["event"]["time_ms"].tolist()

    @cached_property
    def sources(self) -> list[tuple[int, int]]:
        return list(zip(self.heads["partition"].tolist(), self.heads["offset"].tolist()))
