"""A peer of the job: Bytewax with its Kafka connectors and recovery, at least once.

    python -m bytewax.run "tools/bench/peers/bytewax_peer.py:flow('127.0.0.1:9092', 'clicks', 'scores', 'MODEL')" ...

It passes on batches, so decoder and model get batches. Several processes share the partitions and, by key, the users.
"""

from collections.abc import Iterable
from pathlib import Path

import bytewax.operators as op
from bytewax.connectors.kafka import KafkaSink, KafkaSinkMessage, KafkaSource, KafkaSourceMessage
from bytewax.dataflow import Dataflow
from bytewax.inputs import Source
from bytewax.outputs import Sink

from tools.bench.peers.scoring import DecodedClick, PeerScorer, UserState

BATCH_ROWS = 5_000

Keyed = tuple[str, DecodedClick]
Stateful = tuple[str, tuple[DecodedClick, UserState]]


def flow(servers: str, clicks: str, scores: str, bundle: str) -> Dataflow:
    """The dataflow, from topic to topic."""
    source = KafkaSource([servers], [clicks], batch_size=BATCH_ROWS)
    return scoring_flow(source, KafkaSink([servers], scores), PeerScorer(Path(bundle)))


def scoring_flow(source: Source, sink: Sink, scorer: PeerScorer) -> Dataflow:
    """The dataflow between any source and sink."""

    def decode(messages: list[KafkaSourceMessage]) -> Iterable[Keyed]:
        clicks = scorer.decode(
            [message.value for message in messages],
            [message.timestamp[1] for message in messages],
            [(message.partition, message.offset) for message in messages],
        )
        return [(click.user_id, click) for click in clicks]

    def score(rows: list[Stateful]) -> Iterable[KafkaSinkMessage]:
        clicks, states = zip(*(row for _, row in rows))
        scored = scorer.score(clicks, states)
        return [KafkaSinkMessage(click.user_id.encode(), json) for click, json in zip(clicks, scored)]

    dataflow = Dataflow("score_clicks")
    messages = op.input("clicks", dataflow, source)
    keyed = op.flat_map_batch("decode", messages, decode)
    stateful = op.stateful_batch("histories", keyed, UserHistory)
    op.output("scores", op.flat_map_batch("score", stateful, score), sink)
    return dataflow


class UserHistory(op.StatefulBatchLogic):
    """Keeps a user's state; passes on each click with the state after it."""

    def __init__(self, resumed: UserState | None):
        self._state = UserState() if resumed is None else resumed

    def on_batch(self, clicks: list[DecodedClick]) -> tuple[Iterable[tuple[DecodedClick, UserState]], bool]:
        rows = []
        for click in clicks:
            self._state = self._state.plus(click)
            rows.append((click, self._state))
        return rows, op.StatefulBatchLogic.RETAIN

    def snapshot(self) -> UserState:
        return self._state
