"""The jobs' topics: create them with the settings they need, and check them before a job starts."""

from collections.abc import Mapping, Sequence

from kafka.admin import ConfigResource, KafkaAdminClient

from jobs.common.settings import Settings, has_foreign_clicks
from udfs.kafka.connection import open_admin
from udfs.kafka.errors import KafkaClientError
from udfs.kafka.properties import client_options

#: What a topic needs besides the broker's defaults. A dead letter holds its original as base64, a third longer.
TOPIC_CONFIGS = {
    "profiles": {"cleanup.policy": "compact"},
    "requeued": {"cleanup.policy": "compact"},
    "dead_letters": {"max.message.bytes": str(8 * 1024 * 1024)},
}
GROWTH_OF_A_DEAD_LETTER = 1.5
SUBJECT = "topics"
REQUEST_TIMEOUT_MS = 10_000


def create_topics(settings: Settings, partitions: int, replication: int) -> list[str]:
    """Create the job's topics that are missing; returns their names. Raises KafkaClientError."""
    with open_admin(settings.kafka, SUBJECT, request_timeout_ms=REQUEST_TIMEOUT_MS) as admin:
        existing = set(admin.list_topics())
        missing = {
            topic: {
                "num_partitions": partitions,
                "replication_factor": replication,
                "configs": TOPIC_CONFIGS.get(role, {}),
            }
            for role, topic in all_topics(settings).items()
            if topic not in existing
        }
        if missing:
            admin.create_topics(missing, wait_for_metadata=True)
        return list(missing)


def check_topics(settings: Settings, roles: Sequence[str] = ()) -> None:
    """Raise KafkaClientError unless the brokers answer, every topic exists and a dead letter can hold any click.

    The topics are those of the score job, or those of `roles`.
    """
    names = {role: getattr(settings.topics, role) for role in roles} or topics_by_role(settings)
    try:
        client_options(settings.kafka)
    except KafkaClientError as error:  # of Python alone: the job's own clients may be able to use them
        raise KafkaClientError(f"{error}; to submit without checking the topics, add --skip-topic-check") from None
    with open_admin(settings.kafka, SUBJECT, request_timeout_ms=REQUEST_TIMEOUT_MS) as admin:
        missing = sorted(set(names.values()) - set(admin.list_topics()))
        if missing:
            raise KafkaClientError(
                f"these topics do not exist: {', '.join(missing)}",
                "create them with intent topics --conf FILE",
            )
        if "dead_letters" in names:
            check_dead_letter_room(admin, names)


def check_dead_letter_room(admin: KafkaAdminClient, names: Mapping[str, str]) -> None:
    """Raise KafkaClientError unless a dead letter can hold any click and profile; `names` are of topics, by role."""
    limits = {role: _max_message_bytes(admin, names[role]) for role in ("clicks", "profiles", "dead_letters")}
    largest = max(limits["clicks"], limits["profiles"])
    if limits["dead_letters"] < largest * GROWTH_OF_A_DEAD_LETTER:
        raise KafkaClientError(
            f"topic {names['dead_letters']}: max.message.bytes is {limits['dead_letters']}; a dead letter holds, as "
            f"base64, a record of {names['clicks']} or {names['profiles']}, which has up to {largest} bytes",
            f"set it to at least {int(largest * GROWTH_OF_A_DEAD_LETTER)}",
        )


def topics_by_role(settings: Settings) -> dict[str, str]:
    """The names of the topics that the score job uses, by their keys in the settings."""
    topics = settings.topics
    roles = {role: getattr(topics, role) for role in ("clicks", "profiles", "scores", "dead_letters")}
    if settings.feature_log.user_share > 0:
        roles["feature_log"] = topics.feature_log
    if settings.model.registry:
        roles["shadow_scores"] = topics.shadow_scores
    if has_foreign_clicks(settings):
        roles["mapped_clicks"] = topics.mapped_clicks
    return roles


def all_topics(settings: Settings) -> dict[str, str]:
    """The topics by role of the score job, of the jobs that measure and watch, and of jobs.ops.requeue."""
    topics = settings.topics
    others = ("outcomes", "model_quality", "sessions", "kpis", "experiments", "drift", "requeued")
    return topics_by_role(settings) | {role: getattr(topics, role) for role in others}


def _max_message_bytes(admin: KafkaAdminClient, topic: str) -> int:
    key = "max.message.bytes"
    described = admin.describe_configs([ConfigResource("topic", topic, [key])], config_filter="all")
    config = described.get("topic", {}).get(topic, {}).get(key)
    if config is None:  # kafka-python leaves out what is refused
        raise KafkaClientError(f"topic {topic}: this user may not read {key}", "grant it DESCRIBE_CONFIGS on the topic")
    return int(config["value"])
