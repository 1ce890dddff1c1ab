"""A peer of the job: a plain consumer and producer of kafka-python, histories in a dict that a crash loses.

Several processes share the partitions as members of a consumer group.
"""

from kafka import KafkaConsumer, KafkaProducer

from jobs.ops.replay.producer import FOR_THROUGHPUT
from tools.bench.peers.scoring import PeerScorer, UserState, peer_arguments

BATCH_ROWS = 5_000
POLL_MS = 100


def main() -> None:
    """Score until killed. Offsets are committed when the scores of a batch are delivered: at least once."""
    options = peer_arguments("plain_peer")
    scorer = PeerScorer(options.bundle)
    producer = KafkaProducer(bootstrap_servers=options.servers, **FOR_THROUGHPUT)
    consumer = KafkaConsumer(
        options.clicks,
        bootstrap_servers=options.servers,
        group_id=options.scores,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        max_poll_records=BATCH_ROWS,
        metrics_enabled=False,
    )
    states: dict[str, UserState] = {}
    while True:
        batches = consumer.poll(timeout_ms=POLL_MS)
        records = [record for batch in batches.values() for record in batch]
        clicks = scorer.decode(
            [record.value for record in records],
            [record.timestamp for record in records],
            [(record.partition, record.offset) for record in records],
        )
        after = []
        for click in clicks:
            states[click.user_id] = state = states.get(click.user_id, UserState()).plus(click)
            after.append(state)
        for click, score in zip(clicks, scorer.score(clicks, after)):
            # To the partition that the click is from: a user's scores stay in order, and nothing has to be hashed.
            producer.send(options.scores, score, click.user_id.encode(), partition=click.partition)
        if records:
            producer.flush()
            consumer.commit()


if __name__ == "__main__":
    main()
