"""What the jobs' topics are created with, and which topics a submission refuses."""

from contextlib import nullcontext
from pathlib import Path

import pytest

from jobs.common import topics
from jobs.common.settings import load_settings
from udfs.kafka.errors import KafkaClientError

SETTINGS = load_settings(Path(__file__).parents[4] / "conf" / "local.yaml", (), {})


class Admin:
    """Topics with a max.message.bytes, None where this user may not read it."""

    def __init__(self, limits: dict[str, int | None]):
        self.limits, self.created = limits, {}

    def list_topics(self):
        return list(self.limits)

    def create_topics(self, made, wait_for_metadata):
        self.created = made

    def describe_configs(self, resources, config_filter):
        (resource,) = resources
        limit = self.limits[resource.name]
        found = {} if limit is None else {"max.message.bytes": {"value": str(limit)}}
        return {"topic": {resource.name: found}}


@pytest.fixture
def admin(monkeypatch) -> Admin:
    made = Admin({"clicks": 1_000, "profiles": 1_000, "scores": 1_000, "dead_letters": 1_500})
    monkeypatch.setattr(topics, "open_admin", lambda *_, **__: nullcontext(made))
    return made


def test_what_must_never_be_forgotten_is_compacted_and_dead_letters_have_room(admin):
    admin.limits = {"clicks": 1_000}
    assert "clicks" not in topics.create_topics(SETTINGS, 8, 3)
    configs = {name: topic["configs"] for name, topic in admin.created.items()}
    compacted = {name for name, config in configs.items() if config.get("cleanup.policy") == "compact"}
    assert compacted == {"profiles", "requeued"}
    assert int(configs["dead_letters"]["max.message.bytes"]) >= 8 << 20
    assert {(one["num_partitions"], one["replication_factor"]) for one in admin.created.values()} == {(8, 3)}


def test_topics_that_exist_and_fit_are_accepted(admin):
    topics.check_topics(SETTINGS)
    assert topics.create_topics(SETTINGS, 8, 3)
    assert not admin.created.keys() & admin.limits.keys()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dead_letters": 1_499}, "max.message.bytes is 1499; .*; set it to at least 1500"),
        ({"profiles": None}, "topic profiles: this user may not read max.message.bytes; grant it DESCRIBE_CONFIGS"),
    ],
)
def test_topics_that_do_not_fit_are_refused(admin, changes, message):
    admin.limits |= changes
    with pytest.raises(KafkaClientError, match=message):
        topics.check_topics(SETTINGS)


def test_a_missing_topic_is_refused(admin):
    del admin.limits["scores"]
    with pytest.raises(KafkaClientError, match="these topics do not exist: scores; create them with intent topics"):
        topics.check_topics(SETTINGS)
