"""Checks of Kafka, with the job's own rights and without writing a record."""

import time
from collections.abc import Iterable, Iterator, Mapping

from kafka.admin import KafkaAdminClient
from kafka.errors import AuthorizationError, CoordinatorNotAvailableError, KafkaError, for_code

from jobs.common.settings import Settings
from jobs.common.topics import check_dead_letter_room, topics_by_role
from jobs.ops.doctor.finding import Finding
from udfs.config.durations import duration_ms
from udfs.config.text import one_line
from udfs.kafka.connection import open_admin, open_producer
from udfs.kafka.errors import KafkaClientError

TIMEOUT_MS = 10_000
READ_ROLES = ("clicks", "profiles")
LIMITED_ROLES = (*READ_ROLES, "dead_letters")  # whose max.message.bytes the job compares when it is submitted
#: A clock further off makes `decode.max_ahead` and latencies mean something else than they say.
LARGEST_SKEW_MS = 1_000


def check_kafka(settings: Settings) -> Iterator[Finding]:
    """Check broker, topics, rights, and for exactly-once a transaction and the brokers' clock."""
    limits = {"request_timeout_ms": TIMEOUT_MS, "bootstrap_timeout_ms": TIMEOUT_MS}
    try:
        with open_admin(settings.kafka, "brokers", **limits) as admin:
            yield from _check_with(admin, settings)
    except KafkaClientError as error:
        yield Finding("Kafka", error.problem, error.remedy or "correct section kafka of the settings")


def _check_with(admin: KafkaAdminClient, settings: Settings) -> Iterator[Finding]:
    brokers = admin.describe_cluster()["brokers"]
    protocol = settings.kafka.get("security.protocol", "PLAINTEXT")
    yield Finding("Kafka", f"{len(brokers)} broker{'s'[: len(brokers) != 1]} over {protocol}")
    roles = topics_by_role(settings)
    described = {topic["name"]: topic for topic in admin.describe_topics(list(roles.values()))}
    for role, name in roles.items():
        yield check_topic(role, described[name], settings.job.parallelism)
    yield _check_limits(admin, roles)
    yield _check_group(admin, settings.source.group_id)
    if settings.delivery.guarantee == "exactly-once":
        yield from check_transaction(settings, admin)
    else:
        yield Finding("clock of Kafka", "unknown: brokers report their time only in transactions", unknown=True)


def check_topic(role: str, topic: Mapping, parallelism: int) -> Finding:
    """Check Kafka's description of a topic: that it exists, this user's rights, and the number of partitions."""
    subject = f"topic {topic['name']}"
    if topic["error_code"]:
        error = for_code(topic["error_code"])
        if issubclass(error, AuthorizationError):
            return Finding(
                subject, "hidden: DESCRIBE is refused", f"grant this user {', '.join(required_operations(role))}"
            )
        return Finding(subject, f"does not exist ({error.__name__})", "intent topics --conf FILE")
    partitions = len(topic["partitions"])
    count_text = f"{partitions} partition{'s'[: partitions != 1]}"
    refused = missing_operations(required_operations(role), topic.get("authorized_operations"))
    if refused:
        return Finding(subject, f"{count_text}; {', '.join(refused)} refused", f"grant this user {', '.join(refused)}")
    if role == "clicks" and partitions < parallelism:
        remedy = f"job.parallelism={partitions}, or more partitions"
        return Finding(
            subject, f"{count_text} for parallelism {parallelism}: {parallelism - partitions} readers idle", remedy
        )
    return Finding(subject, count_text)


def required_operations(role: str) -> list[str]:
    """The operations that the score job needs on a topic."""
    return ["READ" if role in READ_ROLES else "WRITE"] + ["DESCRIBE_CONFIGS"] * (role in LIMITED_ROLES)


def missing_operations(required: Iterable[str], allowed: Iterable[str] | None) -> list[str]:
    """The required operations that are not allowed; none where Kafka does not report them (before 2.3)."""
    return [] if allowed is None else [operation for operation in required if operation not in set(allowed)]


def check_group(group_id: str, allowed: Iterable[str] | None) -> Finding:
    """Check this user's rights on the consumer group in which a job keeps its offsets."""
    if missing_operations(["READ"], allowed):
        return Finding(f"group {group_id}", "READ refused", "grant this user READ on the group")
    return Finding(f"group {group_id}", "may be used")


def _check_group(admin: KafkaAdminClient, group_id: str) -> Finding:
    deadline = time.monotonic() + TIMEOUT_MS / 1000
    while True:
        try:
            return check_group(group_id, admin.describe_groups([group_id])[group_id].get("authorized_operations"))
        except AuthorizationError:
            return check_group(group_id, ())
        except CoordinatorNotAvailableError:  # a new cluster makes the topic of the groups now
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def _check_limits(admin: KafkaAdminClient, roles: Mapping[str, str]) -> Finding:
    try:
        check_dead_letter_room(admin, roles)
    except (KafkaClientError, KafkaError) as error:
        return Finding("dead letters' size", one_line(error), "see docs/topics.md, dead_letters")
    return Finding("dead letters' size", "holds any click")


def check_transaction(settings: Settings, admin: KafkaAdminClient) -> Iterator[Finding]:
    """Open a transaction without a record, as the sinks would, and abort it: the brokers stamp when it began."""
    name = f"{settings.job.name}-{settings.topics.scores}-doctor"
    timeout_ms = duration_ms(settings.delivery.transaction_timeout)
    options = {"transactional_id": name, "transaction_timeout_ms": timeout_ms, "max_block_ms": TIMEOUT_MS}
    subject = f"{name}, {settings.delivery.transaction_timeout}"
    try:
        with open_producer(settings.kafka, subject, **options) as producer:
            producer.init_transactions()
            producer.begin_transaction()
            before_ms = time.time() * 1000
            producer.send_offsets_to_transaction({}, settings.source.group_id)
            after_ms = time.time() * 1000
            try:
                began_ms = admin.describe_transactions([name])[name].transaction_start_time_ms
            finally:
                producer.abort_transaction()
    except KafkaClientError as error:
        remedy = (
            f"WRITE and DESCRIBE on transactional ids from {settings.job.name}-; at most transaction.max.timeout.ms"
        )
        yield Finding("transactions", error.problem, remedy)
        yield Finding("clock of Kafka", "unknown without a transaction", unknown=True)
        return
    yield Finding("transactions", f"may last {settings.delivery.transaction_timeout}")
    yield check_clock("Kafka", before_ms, began_ms, after_ms)


def check_clock(service: str, before_ms: float, theirs_ms: float, after_ms: float) -> Finding:
    """Check a time that another machine reported between two times of this one, the limits of the precision."""
    ahead = theirs_ms - after_ms
    behind = before_ms - theirs_ms - 1  # reported in whole milliseconds
    off_ms = max(ahead, behind, 0)
    if off_ms == 0:
        return Finding(f"clock of {service}", f"as this machine's, within {after_ms - before_ms:.0f} ms")
    difference = f"{off_ms / 1000:.3f} s {'ahead of' if ahead > behind else 'behind'} this machine's"
    remedy = "synchronise the clocks (NTP)" if off_ms > LARGEST_SKEW_MS else ""
    return Finding(f"clock of {service}", difference, remedy)
