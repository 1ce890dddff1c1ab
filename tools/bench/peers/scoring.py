"""Decoding, features and model for the peers: the functions of the job, and the records that it writes.

The peers run in an environment of their own (`make bench PART=peers`), so nothing here needs Flink.
"""

import argparse
import struct
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from training.data.dataset import ANY_TIME
from udfs.contracts.clicks import ClickDecoder
from udfs.contracts.outputs import Score, to_json
from udfs.contracts.packed_events import EVENT, EVENT_KINDS
from udfs.models.bundle import load_bundle
from udfs.serving.bootstrap import follow, serving_bundle
from udfs.serving.deployment import Deployment, Options, ScoredEvents

HISTORY_LENGTH = 64
_KIND_AT = EVENT.fields["kind"][1]
_COUNTERS = struct.Struct("<qq")


class DecodedClick(NamedTuple):
    """An accepted click, with its partition and offset."""

    user_id: str
    event_id: str | None
    event: bytes
    time_ms: int
    partition: int
    offset: int


class UserState(NamedTuple):
    """The state that a peer keeps of a user."""

    events: int = 0  # that there ever were
    first_seen_ms: int = 0
    history: bytes = b""  # packed, of the last HISTORY_LENGTH events

    def plus(self, click: DecodedClick) -> "UserState":
        first_seen_ms = min(self.first_seen_ms, click.time_ms) if self.events else click.time_ms
        history = self.history[-(HISTORY_LENGTH - 1) * EVENT.itemsize :] + click.event
        return UserState(self.events + 1, first_seen_ms, history)

    def to_bytes(self) -> bytes:
        return _COUNTERS.pack(self.events, self.first_seen_ms) + self.history

    @classmethod
    def of_bytes(cls, packed: bytes | None) -> "UserState":
        if packed is None:
            return cls()
        return cls(*_COUNTERS.unpack_from(packed), packed[_COUNTERS.size :])


class PeerScorer:
    """The functions of the job over plain values."""

    def __init__(self, bundle: Path):
        self._deployment = follow(serving_bundle(load_bundle(bundle, HISTORY_LENGTH), Options())).current
        self._decode = ClickDecoder(ANY_TIME).decode

    def decode(
        self, payloads: Sequence[bytes], times_ms: Sequence[int], sources: Sequence[tuple[int, int]]
    ) -> list[DecodedClick]:
        """The accepted ones of n records, given their timestamps, and their partitions and offsets."""
        decoded = self._decode(payloads, times_ms)
        return [
            DecodedClick(user, event_id, event, time_ms, *source)
            for user, event_id, event, time_ms, source in zip(
                decoded.user_ids, decoded.event_ids, decoded.events, decoded.event_times_ms, sources
            )
            if user is not None
        ]

    def score(self, clicks: Sequence[DecodedClick], states: Sequence[UserState]) -> list[bytes]:
        """The scores of clicks as JSON, given the states of their users, the click included."""
        if not clicks:
            return []
        scored = self._deployment.score(
            [click.user_id for click in clicks],
            [state.history for state in states],
            np.array([state.events for state in states], np.int64),
            np.array([state.first_seen_ms for state in states], np.int64),
            [None] * len(clicks),
        )
        return score_records(clicks, scored, self._deployment)


def score_records(clicks: Sequence[DecodedClick], scored: ScoredEvents, deployment: Deployment) -> list[bytes]:
    """The records that the job would write to the topic of scores, as JSON."""
    scored_at = time.time_ns() // 1_000_000
    names = [EVENT_KINDS[click.event[_KIND_AT]] for click in clicks]
    return [
        to_json(
            Score(
                user_id=click.user_id,
                event_id=click.event_id,
                event_name=name,
                event_time=click.time_ms,
                score=score,
                decision=decision,
                arm=deployment.arm_names[arm],
                model_version=version,
                propensity=deployment.propensity(arm, version),
                scored_at=scored_at,
                source_partition=click.partition,
                source_offset=click.offset,
            )
        )
        for click, name, score, decision, arm, version in zip(
            clicks,
            names,
            scored.score.tolist(),
            scored.decision.tolist(),
            scored.arm.tolist(),
            scored.version.tolist(),
        )
    ]


def peer_arguments(name: str, arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The arguments of the peers' scripts."""
    parser = argparse.ArgumentParser(prog=f"tools.bench.peers.{name}", description="Score clicks for the benchmark.")
    parser.add_argument("--servers", required=True, help="Kafka bootstrap servers")
    parser.add_argument("--clicks", required=True, help="topic to read from the beginning")
    parser.add_argument("--scores", required=True, help="topic to write")
    parser.add_argument("--bundle", type=Path, required=True, help="bundle directory of the model")
    parser.add_argument("--state", type=Path, required=True, help="state directory, used by this process only")
    return parser.parse_args(arguments)
