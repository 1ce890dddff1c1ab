"""The command that creates topics: its exit codes and messages."""

from pathlib import Path

import pytest

from jobs.ops import topics
from udfs.kafka.errors import KafkaClientError

CONF = str(Path(__file__).parents[4] / "conf" / "local.yaml")


@pytest.mark.parametrize(
    ("created", "printed"), [(["clicks", "scores"], "created clicks, scores\n"), ([], "all topics exist\n")]
)
def test_the_topics_that_were_missing_are_named(created, printed, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(topics, "create_topics", lambda settings, *numbers: asked.append(numbers) or created)
    assert topics.main(["--conf", CONF, "--partitions", "8"]) == 0
    assert (capsys.readouterr().out, asked) == (printed, [(8, 1)])


def test_settings_that_cannot_be_used_and_kafka_that_does_not_answer_have_codes_of_their_own(monkeypatch, capsys):
    def fail(*_):
        raise KafkaClientError("no broker answers at b:9092", "start it")

    monkeypatch.setattr(topics, "create_topics", fail)
    assert topics.main(["--conf", "nowhere.yaml"]) == 2
    assert topics.main(["--conf", CONF]) == 1
    refused, failed = capsys.readouterr().err.splitlines()
    assert refused.startswith("topics: nowhere.yaml: no such file")
    assert failed == "topics: no broker answers at b:9092; start it"
