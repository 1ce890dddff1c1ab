import re
from pathlib import Path

import pytest
import yaml

from jobs.common.settings import (
    ConfigError,
    archive_settings,
    drift_settings,
    experiment_settings,
    load_settings,
    population_settings,
    printable,
    session_settings,
    shared_memory_bytes,
)
from jobs.common.tables import consumer_properties, kafka_source
from training.modeling.settings import load_training
from udfs.config.durations import duration_ms
from udfs.contracts.packed_events import EVENT
from udfs.features.user_slots import SLOT_HEAD
from udfs.kafka.errors import KafkaClientError
from udfs.kafka.properties import client_options
from udfs.measurement.bots import Bots

CONF = Path(__file__).parents[4] / "conf"
LOCAL = CONF / "local.yaml"


def load(*overrides, path=LOCAL, environment=None):
    return load_settings(path, overrides, environment or {})


def variant(tmp_path, **sections):
    """A file that extends the shipped base."""
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"extends": str(CONF / "base.yaml"), **sections}))
    return path


def test_local_extends_base():
    settings = load()
    assert settings.state.history_length == 64
    assert settings.kafka["client.id"] == "score-clicks-local"


def test_prod_takes_its_secrets_from_the_environment():
    environment = {"CHECKPOINT_DIR": "s3://b/c", "KAFKA_BOOTSTRAP_SERVERS": "k:1", "KAFKA_PASSWORD": "s3cret"}
    settings = load(path=CONF / "prod.yaml", environment=environment)
    assert settings.kafka["bootstrap.servers"] == "k:1"
    assert "${env:KAFKA_PASSWORD}" in settings.kafka["sasl.jaas.config"]  # for the cluster to look up
    assert "s3cret" not in str(settings)


def test_a_secret_that_the_client_looks_up_is_not_printed():
    settings = load("kafka.sasl.jaas.config=${SECRET}", environment={"SECRET": "s3cret"})
    assert settings.kafka["sasl.jaas.config"] == "s3cret"
    assert "s3cret" not in str(printable(settings))


def test_a_missing_environment_variable_is_named_with_its_key():
    with pytest.raises(
        ConfigError, match=r"prod.yaml: key checkpoints.dir: environment variable CHECKPOINT_DIR is not set"
    ):
        load(path=CONF / "prod.yaml")


def test_set_wins_over_the_environment_and_the_environment_over_the_file():
    environment = {"INTENT_STATE__TTL": "7d", "INTENT_STATE__BACKEND": "hashmap"}
    settings = load("state.ttl=1 d", environment=environment)
    assert (settings.state.ttl, settings.state.backend) == ("1 d", "hashmap")


def test_kafka_and_flink_keys_keep_their_dots():
    settings = load(
        "flink.taskmanager.memory.process.size=2g",
        environment={"INTENT_KAFKA__BOOTSTRAP_SERVERS": "other:9092"},
    )
    assert settings.flink["taskmanager.memory.process.size"] == "2g"
    assert settings.kafka["bootstrap.servers"] == "other:9092"


NOW_MS = 1_800_000_000_000


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("state.tll=1 d", "key state.tll: unknown key"),
        ("stat.ttl=1 d", "key stat: unknown key"),
        ("state.history_length=many", "key state.history_length: Expected `int`, got `str`"),
        ("state.history_length=0", "key state.history_length: Expected `int` >= 1"),
        ("state.ttl=soon", "key state.ttl: expected a number and a unit"),
        ("state.ttl=0 s", "key state.ttl: must be more than 0"),
        ("state.backend=redis", "key state.backend: Invalid enum value 'redis'"),
        ("model.trusted_keys=[abc]", "key model.trusted_keys[0]: expected a public key of Ed25519"),
        ("model.threshold=1.5", "key model.threshold: Expected `float` <= 1.0"),
        ("topics.scores=clicks", "clicks is also topics."),
        ("topics.scores=all scores", "key topics.scores: expected 1 to 249 of the characters A-Z, a-z, 0-9, '.', '_'"),
        ('topics.scores="scores\\n"', "key topics.scores: expected 1 to 249 of the characters"),
        (f"job.name={'x' * 101}", "key job.name: expected 1 to 100 of the characters"),
        ("experiments.treatment=champion", "key experiments.treatment: champion is also experiments.baseline"),
        ("experiments.baseline=not_eligible", "key experiments.baseline: Invalid enum value 'not_eligible'"),
        ("experiments.start=soon", "key experiments.start: Invalid RFC3339"),
        (
            f"experiments.start={NOW_MS}",
            "key experiments.shares: must be set together with experiments.start (got null)",
        ),
        (
            "experiments.shares={challenger: 0.5, champion: 0.5}",
            "key experiments.start: must be set together with experiments.shares (got null): set both for a replay",
        ),
        ("experiments.interval=0 s", "key experiments.interval: must be more than 0"),
        ("bots.events_per_hour=1", "key bots.events_per_hour: Expected `int` >= 2"),
        ("bots.paced_events=null", "key bots.paced_events: Expected `int`, got `null`"),
        ("bots.min_gap=0.2", "key bots.min_gap: Expected `str | null`, got `float`"),
        ("bots.min_gap=fast", "key bots.min_gap: expected a number and a unit"),
        ("workers.memory_dir=shm", "key workers.memory_dir: expected an absolute path, got 'shm'"),
        ("workers.memory_dir=", "key workers.memory_dir: "),
        ("workers.batch_rows=8193", "key workers.batch_rows: Expected `int` <= 8192"),
        ("workers.batch_bytes=65535", "key workers.batch_bytes: Expected `int` >= 65536"),
        ("workers.cached_users=1000000", "key workers.cached_users: 1000000 users would take"),
        ("workers.start_timeout=0 s", "key workers.start_timeout: must be more than 0"),
        ("workers.answer_timeout=0 s", "key workers.answer_timeout: must be more than 0"),
        ("background.bundle_time=0 s", "key background.bundle_time: must be more than 0"),
        (
            "flink.table.local-time-zone=Asia/Tokyo",
            "local.yaml: key flink.table.local-time-zone: must be UTC (got Asia/Tokyo): jobs compute with times in UTC",
        ),
        ("execution.profile=latency", "key execution.profile: unknown key"),
        ("kafka.bootstrap.servers=", "key kafka.bootstrap.servers: missing"),
        ("ttl=1 d", "--set ttl: expected section.key"),
        ("state.ttl", "--set state.ttl: expected KEY=VALUE"),
        ("kafka.sasl.jaas.config=secret", "a secret on the command line shows"),
        ("kafka.ssl.key.password=secret", "a secret on the command line shows"),
    ],
)
def test_a_bad_setting_is_one_line_that_names_the_key_and_the_rule(override, message):
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        load(override)
    assert "\n" not in str(caught.value)


def test_the_limits_of_bots_are_those_of_training_and_each_can_be_switched_off():
    assert load().bots == load_training(CONF / "training.yaml").bots == Bots()
    off = load("bots.events_per_hour=null", environment={"INTENT_BOTS__MIN_GAP": "null"})
    assert off.bots.limits == ()


def test_a_worker_need_not_wait_for_more_records():
    assert load("workers.linger=0 ms").workers.linger == "0 ms"


SLOT_BYTES = SLOT_HEAD.itemsize + 15 * EVENT.itemsize  # of a history of 10 events, and half as many again


def test_shared_memory_grows_with_buffers_and_with_cached_users():
    settings = load("workers.batch_bytes=1048576", "workers.cached_users=1000", "state.history_length=10")
    more = load("workers.batch_bytes=1048576", "workers.cached_users=1001", "state.history_length=10")
    assert shared_memory_bytes(settings) == 6 * 1048576 + 1000 * SLOT_BYTES
    assert shared_memory_bytes(more) - shared_memory_bytes(settings) == SLOT_BYTES


def test_a_secret_in_a_file_is_refused_without_printing_it(tmp_path):
    with pytest.raises(ConfigError, match="key kafka.sasl.jaas.config: a secret does not belong in a file") as caught:
        load(path=variant(tmp_path, kafka={"sasl.jaas.config": "hunter2"}))
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: [", "not YAML"),
        ("[" * 700, "not YAML: nested too deeply"),
        ("- a", "expected sections"),
        ("", "expected sections"),
        ("kafka: 2", "key "),
        ('extends: "\\0"', "key extends: .* is not a path"),
        ("kafka: {1: x, null: y}", "key "),
    ],
)
def test_a_file_that_is_no_configuration_is_refused(tmp_path, content, message):
    path = tmp_path / "broken.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError, match=f"broken.yaml: {message}"):
        load(path=path)


def test_a_key_that_is_given_twice_is_refused(tmp_path):
    path = tmp_path / "twice.yaml"
    path.write_text(f"extends: {CONF / 'base.yaml'}\nstate: {{ttl: 1 d}}\nstate: {{backend: hashmap}}\n")
    with pytest.raises(ConfigError, match=f"^{re.escape(str(path))}: line 3: key state is given twice$"):
        load(path=path)
    above = tmp_path / "above.yaml"
    above.write_text("extends: twice.yaml\n")
    with pytest.raises(ConfigError, match=f"^{re.escape(str(path))}: line 3: key state is given twice$"):
        load(path=above)
    with pytest.raises(ConfigError, match=r"^--set experiments\.shares: line 1: key champion is given twice$"):
        load("experiments.shares={champion: 0.5, champion: 0.4}")
    with pytest.raises(ConfigError, match="^INTENT_EXPERIMENTS__SHARES: line 1: key a is given twice$"):
        load(environment={"INTENT_EXPERIMENTS__SHARES": "{a: 1, a: 2}"})


def refusal_of(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load(path=path)
    return str(caught.value)


def test_a_missing_file_is_named_with_what_to_do(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    advice = "pass the path of a settings file"
    copy = "such as a copy of conf/local.yaml in the project's directory conf"
    assert refusal_of(tmp_path / "none.yaml") == f"{tmp_path}/none.yaml: no such file; {advice}, {copy}"
    assert refusal_of(Path("conf/none.yaml")) == f"conf/none.yaml: no such file in {tmp_path}; {advice}, {copy}"


@pytest.mark.parametrize(("directory", "path"), [(".", "conf/local.yaml"), ("conf", "local.yaml")])
def test_the_advice_is_no_copy_of_the_missing_file_itself(directory, path, tmp_path, monkeypatch):
    (tmp_path / "conf").mkdir()
    monkeypatch.chdir(tmp_path / directory)
    where = (tmp_path / directory).resolve()
    assert refusal_of(Path(path)) == f"{path}: no such file in {where}; pass the path of a settings file"


def test_a_missing_base_is_named_with_the_file_that_extends_it(tmp_path):
    (tmp_path / "mine.yaml").write_text("extends: gone.yaml")
    expected = f"{tmp_path}/gone.yaml: no such file; key extends of {tmp_path}/mine.yaml names it"
    assert refusal_of(tmp_path / "mine.yaml") == expected


def test_a_file_can_not_extend_itself(tmp_path):
    path = tmp_path / "loop.yaml"
    path.write_text("extends: loop.yaml")
    with pytest.raises(ConfigError, match="extends itself"):
        load(path=path)


def test_a_missing_section_is_named(tmp_path):
    path = tmp_path / "half.yaml"
    path.write_text("job: {name: x, parallelism: 1}")
    with pytest.raises(ConfigError, match="half.yaml: key topics: missing"):
        load(path=path)


def test_exactly_once_needs_transactions_that_outlive_a_checkpoint():
    with pytest.raises(ConfigError, match="key delivery.transaction_timeout: 1 min is not more than"):
        load("delivery.guarantee=exactly-once", "delivery.transaction_timeout=1 min")


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [("5 ms", 5), ("10s", 10_000), ("2 min", 120_000), ("1 h", 3_600_000), ("3 d", 259_200_000)],
)
def test_durations_are_milliseconds(text, milliseconds):
    assert duration_ms(text) == milliseconds


def test_the_archive_job_has_its_own_name_group_and_interval():
    settings = load("archive.dir=file:///data", "archive.interval=5 min", "job.parallelism=9")
    archive = archive_settings(settings)
    assert (archive.job.name, archive.source.group_id) == ("archive-clicks", "archive-clicks")
    assert (archive.checkpoints.interval, archive.job.parallelism) == ("5 min", 1)
    assert archive.topics == settings.topics


@pytest.mark.parametrize("directory", ["null", "build/archive", "/data"])
def test_the_archive_needs_a_directory_that_every_task_manager_knows(directory):
    with pytest.raises(ConfigError, match=r"key archive.dir: expected a URI such as .*, got"):
        archive_settings(load(f"archive.dir={directory}"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "feature_log.user_share=0",
            r"key feature_log.user_share: must be above 0 \(got 0\): drift is measured on the feature log",
        ),
        ("drift.slide=7 s", r"key drift.slide: must be a positive multiple of 5 s \(got 7 s\)"),
        ("drift.window=90 s", r"key drift.window: must be a positive multiple of drift.slide, 1 min \(got 90 s\)"),
        ("drift.alarm=0.05", r"key drift.alarm: must be at least drift.watch, 0.1 \(got 0.05\)"),
        ("drift.unwatched=[mood]", "key drift.unwatched: unknown feature mood"),
    ],
)
def test_drift_that_can_not_be_watched_is_refused_by_key(override, message):
    with pytest.raises(ConfigError, match=message):
        drift_settings(load("feature_log.user_share=0.5", override))


@pytest.mark.parametrize(
    ("start", "shares", "message"),
    [
        (NOW_MS // 1000, "{challenger: 0.5, champion: 0.5}", "start: expected milliseconds since 1970, got 1800000000"),
        (NOW_MS, "{challenger: 0.5}", "shares: champion is missing; set a user share for both arms"),
        (
            NOW_MS,
            "{challenger: 0.5, champion: 0.3, control: 0.2}",
            "shares: control is neither experiments.treatment nor",
        ),
        (NOW_MS, "{challenger: 0.5, champion: 0.6}", "shares: must add up to at most 1 (got 1.1)"),
        (NOW_MS, "{challenger: 0, champion: 1}", "shares: Expected `float` > 0.0"),
        (NOW_MS, "{challenger: 0.1, champion: 1.1}", "shares: Expected `float` <= 1.0"),
        (NOW_MS, "{challenger: 0.1, champion: 0.8, rival: 0.1}", "shares: rival is neither experiments.treatment nor"),
    ],
)
def test_a_replay_that_can_not_be_judged_is_refused_by_key(start, shares, message):
    with pytest.raises(ConfigError, match=re.escape(f"local.yaml: key experiments.{message}")) as caught:
        load(f"experiments.start={start}", f"experiments.shares={shares}")
    assert "\n" not in str(caught.value)


def test_experiments_are_those_of_a_ledger_or_of_a_start_and_shares():
    with pytest.raises(ConfigError, match=r"key model.registry: must be set \(got null\): its ledger says when"):
        experiment_settings(load())
    followed = experiment_settings(load("model.registry=registry", "source.start=latest"))
    assert followed.source.start == "earliest"
    replayed = load("experiments.start=2026-05-01T08:00:00Z", "experiments.shares={challenger: 0.3, champion: 0.7}")
    assert experiment_settings(replayed).job.name == "watch-experiments"


def test_clicks_that_the_score_job_has_judged_are_not_judged_by_when_it_wrote_them():
    settings = load(f"clicks.mapping={CONF / 'mappings' / 'example.yaml'}")
    judged = session_settings(settings)
    assert judged.topics.clicks == settings.topics.mapped_clicks
    assert duration_ms(judged.decode.max_behind) > 10 * duration_ms("365 d")
    assert judged.decode.max_record_bytes > 100 * settings.decode.max_record_bytes
    assert session_settings(load()).decode == load().decode


def population(tmp_path, *overrides: str, schedule: str = "{}"):
    """The settings for jobs.publish_population, with a schedule in the declaration."""
    (tmp_path / "mine.yaml").write_text(f"extends: population\npopulation: {schedule}\n")
    where = f"clicks.declaration={tmp_path / 'mine.yaml'}", f"population.dir={tmp_path}"
    return population_settings(load(*where, "source.start=latest", *overrides))


def test_the_job_of_the_population_reads_all_clicks_in_the_time_of_their_arrival(tmp_path):
    settings = population(tmp_path, "population.parallelism=2")
    assert (settings.job.name, settings.source.group_id) == ("publish-population", "publish-population")
    assert (settings.job.parallelism, settings.source.start) == (2, "earliest")
    assert settings.flink["table.exec.source.idle-timeout"] == "1 min"


@pytest.mark.parametrize(
    ("override", "schedule", "message"),
    [
        ("population.dir=null", "{}", "key population.dir: must be set (got null): the declaration has columns of"),
        ("population.dir=tables", "{}", "key population.dir: expected an absolute path or a URL such as s3://bucket/"),
        ("clicks.declaration=null", "{}", "key clicks.declaration: it has no columns of type population"),
        (
            "event_time.lateness=2 min",
            "{delay: 3m}",
            "key clicks.declaration: population.delay must be more than event_time.lateness + population.idle + "
            "population.poll, 210 s (got 180 s)",
        ),
        (
            "population.keep=1 h",
            "{}",
            "key population.keep: must be at least population.every + population.delay of the declaration, 3900 s "
            "(got 1 h)",
        ),
    ],
)
def test_a_population_that_can_not_be_published_is_refused_by_key(tmp_path, override, schedule, message):
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        population(tmp_path, override, schedule=schedule)
    assert "\n" not in str(caught.value)


def test_a_secret_may_be_a_variable_of_the_clusters_environment(monkeypatch):
    login = 'org.apache.kafka.common.security.scram.ScramLoginModule required username="u" password="${env:PW}";'
    settings = load(f"kafka.sasl.jaas.config='{login}'")
    options = kafka_source(settings, "clicks")
    assert options["properties.sasl.jaas.config"] == f"org.apache.flink.kafka.shaded.{login}"
    assert options["properties.config.providers"] == "env"
    with pytest.raises(KafkaClientError, match="kafka.sasl.jaas.config: environment variable PW is not set"):
        client_options(settings.kafka)
    monkeypatch.setenv("PW", "s3cret")
    assert client_options(settings.kafka)["sasl_plain_password"] == "s3cret"
    assert "s3cret" not in str(options)


def test_sources_of_both_kinds_look_for_new_partitions():
    settings = load("source.discovery=90 s")
    assert consumer_properties(settings)["partition.discovery.interval.ms"] == 90_000
    assert kafka_source(settings, "clicks")["scan.topic-partition-discovery.interval"] == "90000 ms"


def test_a_login_module_of_the_connector_is_left_as_it_is():
    login = 'org.apache.flink.kafka.shaded.org.apache.kafka.common.security.plain.PlainLoginModule required u="${U}";'
    options = kafka_source(load(f"kafka.sasl.jaas.config='{login}'", environment={"U": "u"}), "clicks")
    assert options["properties.sasl.jaas.config"] == login.replace("${U}", "u")
    assert "properties.config.providers" not in options
