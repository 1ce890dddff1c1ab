"""Read topics while the jobs write them, with the time at which each record arrives."""

import threading
import time
from collections.abc import Callable, Sequence

from kafka import KafkaConsumer, TopicPartition

#: Called with a topic, a record's value, and the time at which it was received, in seconds since 1970.
Handler = Callable[[str, bytes, float], None]


class TopicWatcher(threading.Thread):
    """Passes every record of some topics to a handler, from now until `stop`: earlier runs may have left others."""

    def __init__(self, bootstrap_servers: str, topics: Sequence[str], handle: Handler):
        super().__init__(daemon=True)
        self._handle = handle
        self._stopping = threading.Event()
        self._consumer = KafkaConsumer(
            bootstrap_servers=bootstrap_servers,
            enable_auto_commit=False,
            max_partition_fetch_bytes=8 * 1024 * 1024,  # a dead letter may be large
            fetch_max_wait_ms=10,
            metrics_enabled=False,
        )
        partitions = [
            TopicPartition(topic, number) for topic in topics for number in self._consumer.partitions_for_topic(topic)
        ]
        self._consumer.assign(partitions)
        self._consumer.seek_to_end(*partitions)
        for partition in partitions:  # seeking is lazy: fix the position now, before anybody sends
            self._consumer.position(partition)

    def run(self) -> None:
        while not self._stopping.is_set():
            batches = self._consumer.poll(timeout_ms=100)
            now = time.time()
            for partition, records in batches.items():
                for record in records:
                    self._handle(partition.topic, record.value, now)

    def stop(self) -> None:
        self._stopping.set()
        self.join()
        self._consumer.close()
