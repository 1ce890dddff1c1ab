"""Topics read to their end, and an experiment reported from one."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from kafka import KafkaAdminClient, KafkaProducer

from tests.unit.training.test_experiment import STATED, sessions_of
from training.experiment import main
from udfs.kafka.errors import KafkaClientError
from udfs.kafka.reading import read_topic

pytestmark = pytest.mark.e2e


@pytest.fixture
def topic(stack, request) -> str:
    admin = KafkaAdminClient(bootstrap_servers=stack.bootstrap_servers)
    name = request.node.name[:80]
    admin.create_topics({name: {"num_partitions": 2, "replication_factor": 1}}, wait_for_metadata=True)
    admin.close()
    return name


@pytest.fixture
def properties(stack) -> dict[str, str]:
    return {"bootstrap.servers": stack.bootstrap_servers}


@contextmanager
def producer(stack, **options) -> Iterator[KafkaProducer]:
    made = KafkaProducer(bootstrap_servers=stack.bootstrap_servers, **options)
    try:
        yield made
    finally:
        made.close()


def test_what_is_committed_is_read_at_once_whatever_ends_the_topic(stack, topic, properties):
    with producer(stack, transactional_id=topic) as sending:
        sending.init_transactions()
        for value, commits in ((b"a", True), (b"b", False), (b"c", True), (b"d", False)):
            sending.begin_transaction()
            for partition in range(2):
                sending.send(topic, value, partition=partition)
            sending.commit_transaction() if commits else sending.abort_transaction()
        started = time.monotonic()
        assert sorted(read_topic(properties, topic)) == [b"a", b"a", b"c", b"c"]
        sending.begin_transaction()
        sending.send(topic, b"open", partition=0)
        sending.flush()
        assert sorted(read_topic(properties, topic)) == [b"a", b"a", b"c", b"c"]
        assert time.monotonic() - started < 10
        sending.abort_transaction()


def test_a_topic_is_read_from_a_time_on(stack, topic, properties):
    with producer(stack) as sending:
        for number in range(10):
            sending.send(topic, str(number).encode(), partition=number % 2, timestamp_ms=1_000 + number)
    assert sorted(map(int, read_topic(properties, topic))) == list(range(10))
    assert sorted(map(int, read_topic(properties, topic, since_ms=1_007))) == [7, 8, 9]
    assert list(read_topic(properties, topic, since_ms=2_000)) == []


def test_an_empty_topic_has_nothing_and_a_missing_one_is_named(topic, properties):
    assert list(read_topic(properties, topic)) == []
    with pytest.raises(KafkaClientError, match="topic missing-one does not exist, or this user may not see it; check"):
        list(read_topic(properties, "missing-one"))


def test_an_experiment_is_reported_from_its_topic_as_from_a_file(stack, topic, properties, tmp_path, capsys):
    lines = [json.dumps(row).encode() for row in sessions_of(200, {"champion": 0.2, "challenger": 0.3})]
    (tmp_path / "sessions.jsonl").write_bytes(b"\n".join(lines))
    with producer(stack) as sending:
        for line in lines:
            sending.send(topic, line)
    assert main(["report", *STATED, "--sessions", str(tmp_path)]) == 0
    of_files = capsys.readouterr().out
    assert main(["report", *STATED, "--topic", topic, "--kafka", f"bootstrap.servers={stack.bootstrap_servers}"]) == 0
    assert capsys.readouterr().out == of_files
