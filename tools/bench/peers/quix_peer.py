"""A peer of the job: Quix Streams, histories in its own state (RocksDB, with a changelog topic), at least once.

It passes on one click at a time, so the model scores one row at a time. Several processes share the partitions as
members of a consumer group.
"""

from quixstreams import Application
from quixstreams.context import message_context
from quixstreams.state import State

from tools.bench.peers.scoring import PeerScorer, UserState, peer_arguments

STATE_KEY = "user"


class ClickScorer:
    """Scores a click with the state of its key."""

    def __init__(self, scorer: PeerScorer):
        self._scorer = scorer

    def __call__(self, payload: bytes, _key: object, time_ms: int, _headers: object, state: State) -> list[bytes]:
        source = message_context()
        clicks = self._scorer.decode([payload], [time_ms], [(source.partition, source.offset)])
        if not clicks:
            return []
        after = UserState.of_bytes(state.get_bytes(STATE_KEY)).plus(clicks[0])
        state.set_bytes(STATE_KEY, after.to_bytes())
        return self._scorer.score(clicks, [after])


def main() -> None:
    """Score until killed."""
    options = peer_arguments("quix_peer")
    application = Application(
        broker_address=options.servers,
        consumer_group=options.scores,
        auto_offset_reset="earliest",
        state_dir=options.state,
        loglevel="WARNING",
    )
    clicks = application.topic(options.clicks, key_deserializer="bytes", value_deserializer="bytes")
    scores = application.topic(options.scores, key_serializer="bytes", value_serializer="bytes")
    frame = application.dataframe(clicks)
    frame = frame.apply(ClickScorer(PeerScorer(options.bundle)), stateful=True, expand=True, metadata=True)
    frame.to_topic(scores)
    application.run()


if __name__ == "__main__":
    main()
