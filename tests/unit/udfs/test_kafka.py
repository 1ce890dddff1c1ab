"""What the package udfs.kafka says of client properties, and of connections and topics that fail; no broker."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from kafka import TopicPartition
from kafka.errors import KafkaTimeoutError, TopicAuthorizationFailedError

from dashboard.ingest import topic_reader
from jobs.common.settings import load_settings
from jobs.common.topics import check_topics
from udfs.kafka import reading
from udfs.kafka.connection import kafka_failures, open_admin, open_consumer, open_producer
from udfs.kafka.errors import KafkaClientError
from udfs.kafka.properties import client_options, client_properties
from udfs.kafka.reading import partitions_of, records_until_now, seek_to_time

CONF = Path(__file__).parents[3] / "conf" / "local.yaml"
NOWHERE = {"bootstrap.servers": "127.0.0.1:1"}
FIRST, SECOND = TopicPartition("clicks", 0), TopicPartition("clicks", 1)


class FakeConsumer:
    """A consumer of partitions that each begin at offset 0; `batches` is what polls answer, one after the other."""

    def __init__(self, ends, *batches, times=None):
        self.ends, self.batches, self.times = ends, list(batches), times or {}
        self.positions = dict.fromkeys(ends, 0)

    def partitions_for_topic(self, topic):
        return {part.partition for part in self.ends if part.topic == topic}

    def end_offsets(self, partitions):
        return {part: self.ends[part] for part in partitions}

    def offsets_for_times(self, times):
        return {part: self.times.get(part) for part in times}

    def position(self, partition):
        return self.positions[partition]

    def seek(self, partition, offset):
        self.positions[partition] = offset

    def poll(self, timeout_ms):
        batch = self.batches.pop(0) if self.batches else {}
        for partition, offsets in batch.items():
            self.positions[partition] = offsets[-1] + 1
        return {part: [SimpleNamespace(offset=offset) for offset in offsets] for part, offsets in batch.items()}


def test_client_properties_of_a_command_line_have_a_local_broker_by_default():
    assert client_properties([], {}) == {"bootstrap.servers": "localhost:9092"}
    texts = ["bootstrap.servers=a:1,b:2", "sasl.jaas.config=${JAAS}"]
    assert client_properties(texts, {"JAAS": "x=y"}) == {"bootstrap.servers": "a:1,b:2", "sasl.jaas.config": "x=y"}


def test_properties_of_java_alone_and_null_ones_are_no_options_of_python():
    properties = {
        **NOWHERE,
        "compression.type": "zstd",
        "security.protocol": None,
        "ssl.keystore.password": "${env:NO}",
    }
    assert client_options(properties) == {"bootstrap_servers": ["127.0.0.1:1"]}


@pytest.mark.parametrize("login", ["username='u' password='p'", 'username = "u"  password="p"'])
def test_a_login_is_read_as_java_reads_it(login):
    jaas = f"org.apache.kafka.common.security.plain.PlainLoginModule required {login};"
    options = client_options({**NOWHERE, "sasl.mechanism": "PLAIN", "sasl.jaas.config": jaas})
    assert (options["sasl_plain_username"], options["sasl_plain_password"]) == ("u", "p")


def test_a_login_without_a_name_is_refused():
    jaas = 'org.apache.kafka.common.security.scram.ScramLoginModule required password="p";'
    with pytest.raises(KafkaClientError, match="kafka.sasl.jaas.config: no username in it") as caught:
        client_options({**NOWHERE, "sasl.mechanism": "SCRAM-SHA-512", "sasl.jaas.config": jaas})
    assert '"p"' not in str(caught.value)


def test_a_trust_store_is_one_of_pem():
    location = {**NOWHERE, "ssl.truststore.location": "/ca"}
    assert client_options({**location, "ssl.truststore.type": "PEM"})["ssl_cafile"] == "/ca"
    with pytest.raises(KafkaClientError, match="kafka.ssl.truststore.location: Python reads .* PEM only; export"):
        client_options(location)


def test_a_submission_whose_properties_python_cannot_use_may_skip_the_check():
    settings = load_settings(CONF, ["kafka.ssl.truststore.location=/ca"], {})
    with pytest.raises(KafkaClientError, match="trust store of type PEM only; .*--skip-topic-check"):
        check_topics(settings)


def test_submitted_jobs_read_properties_without_kafka_python():
    modules = "import sys, udfs.kafka.properties; sys.exit('kafka' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", modules], check=False).returncode == 0


@pytest.mark.parametrize("open_client", [open_consumer, open_producer, open_admin])
def test_a_broker_that_does_not_answer_is_named_with_the_cause(open_client):
    message = r"^no broker answers at 127\.0\.0\.1:1 over PLAINTEXT: .*ECONNREFUSED; check bootstrap\.servers, .*$"
    with pytest.raises(KafkaClientError, match=message), open_client(NOWHERE, "topics", bootstrap_timeout_ms=200):
        pass


def test_the_dashboard_is_told_in_the_same_words(monkeypatch):
    monkeypatch.setitem(topic_reader.OPTIONS, "bootstrap_timeout_ms", 200)
    with pytest.raises(KafkaClientError, match="no broker answers at 127.0.0.1:1"), topic_reader.open_reader(NOWHERE):
        pass


@pytest.mark.parametrize(
    ("properties", "options", "message"),
    [
        ({"bootstrap.servers": "a:b:c"}, {}, "Kafka at a:b:c: .*; correct the client properties"),
        (NOWHERE, {"request_timeout_ms": 100}, "Kafka at 127.0.0.1:1: .* request_timeout_ms .*; correct the client"),
    ],
)
def test_a_property_that_kafka_python_refuses_is_no_matter_of_the_broker(properties, options, message):
    with pytest.raises(KafkaClientError, match=message), open_consumer(properties, "topics", **options):
        pass


@pytest.mark.parametrize(
    ("error", "remedy", "message"),
    [
        (KafkaTimeoutError("no\nanswer"), "", "topic t: KafkaTimeoutError: no answer; check that the brokers are up"),
        (TopicAuthorizationFailedError(), "", "topic t: .*TopicAuthorizationFailedError; grant this user the right"),
        (KafkaTimeoutError("late"), "run it again", "topic t: KafkaTimeoutError: late; run it again"),
    ],
)
def test_what_kafka_refuses_later_is_a_line_with_the_subject_and_a_remedy(error, remedy, message):
    with pytest.raises(KafkaClientError, match=message) as refusal, kafka_failures("topic t", remedy):
        raise error
    assert refusal.value.__cause__ is error
    assert str(refusal.value) == f"{refusal.value.problem}; {refusal.value.remedy}"


def test_other_errors_pass():
    with pytest.raises(KeyError), kafka_failures("topic t"):
        raise KeyError


def test_a_topic_that_is_not_shown_is_named_with_what_to_do():
    consumer = FakeConsumer({SECOND: 1, FIRST: 1})
    assert partitions_of(consumer, "clicks") == [FIRST, SECOND]
    with pytest.raises(KafkaClientError, match="topic orders does not exist, or this user may not see it; check"):
        partitions_of(consumer, "orders")


def test_records_are_read_to_the_end_of_the_beginning_and_no_further():
    consumer = FakeConsumer({FIRST: 3, SECOND: 0}, {FIRST: [0, 1]}, {}, {FIRST: [2, 3, 4]})
    assert [record.offset for record in records_until_now(consumer, [FIRST, SECOND])] == [0, 1, 2]
    assert consumer.positions == {FIRST: 3, SECOND: 0}  # where what comes next is read


def test_offsets_without_a_record_do_not_stop_the_reading():
    consumer = FakeConsumer({FIRST: 3}, {FIRST: [0]})
    records = records_until_now(consumer, [FIRST])
    assert next(records).offset == 0
    consumer.positions[FIRST] = 3  # the markers of a transaction
    assert not list(records)


def test_a_silence_before_the_end_is_an_error(monkeypatch):
    monkeypatch.setattr(reading, "SILENCE_MS", 2_000)
    consumer = FakeConsumer({FIRST: 2}, {FIRST: [0]}, {}, {})
    with pytest.raises(KafkaClientError, match="topic clicks: no record arrived for 2 s before the end was reached"):
        list(records_until_now(consumer, [FIRST]))


def test_a_time_after_the_last_record_is_the_end():
    consumer = FakeConsumer({FIRST: 9, SECOND: 9}, times={FIRST: SimpleNamespace(offset=4)})
    seek_to_time(consumer, [FIRST, SECOND], 1_000)
    assert consumer.positions == {FIRST: 4, SECOND: 9}
