from pathlib import Path

import pytest

from jobs.common.settings import load_settings
from jobs.ops.doctor.__main__ import main
from jobs.ops.doctor.finding import Finding
from jobs.ops.doctor.kafka import check_clock, check_group, check_topic, missing_operations
from jobs.ops.doctor.target import (
    check_checkpoint_dir,
    check_jars,
    check_slots,
    check_version,
    describe_shared_memory,
    slots_of_task_manager,
)

CONF = Path(__file__).parents[4] / "conf" / "local.yaml"


def topic(operations=("READ", "DESCRIBE_CONFIGS"), partitions=4, error_code=0):
    return {
        "name": "clicks",
        "error_code": error_code,
        "partitions": [None] * partitions,
        "authorized_operations": None if operations is None else [*operations],
    }


def test_a_topic_that_is_there_and_may_be_read_is_fine():
    assert not check_topic("clicks", topic(), 4).remedy


def test_a_broker_that_does_not_say_what_is_allowed_is_no_fault():
    assert not check_topic("clicks", topic(None), 4).remedy


def test_what_a_job_may_not_do_with_a_topic_is_named():
    assert check_topic("clicks", topic(["DESCRIBE"]), 4).result.endswith("READ, DESCRIBE_CONFIGS refused")
    assert check_topic("scores", topic(["READ"]), 4).remedy == "grant this user WRITE"


def test_a_missing_topic_is_told_from_a_hidden_one():
    assert "intent topics" in check_topic("clicks", topic(error_code=3, partitions=0), 4).remedy
    assert "DESCRIBE is refused" in check_topic("clicks", topic(error_code=29, partitions=0), 4).result


def test_fewer_partitions_than_parallel_readers_are_named_for_clicks_alone():
    assert "2 readers idle" in check_topic("clicks", topic(partitions=2), 4).result
    assert not check_topic("scores", topic(["WRITE"], partitions=2), 4).remedy


def test_a_group_that_may_not_be_read_is_named():
    assert check_group("g", ["DESCRIBE"]).remedy
    assert not check_group("g", ["READ"]).remedy
    assert not check_group("g", None).remedy
    assert missing_operations(["READ"], []) == ["READ"]


@pytest.mark.parametrize(
    ("theirs", "found", "is_missing"),
    [
        (1_005, "as this machine's, within 10 ms", False),
        (999, "as this machine's, within 10 ms", False),  # they tell whole milliseconds
        (1_510, "0.500 s ahead of this machine's", False),
        (4_010, "3.000 s ahead of this machine's", True),
        (-2_001, "3.000 s behind this machine's", True),
    ],
)
def test_a_clock_is_off_by_what_the_two_moments_around_it_do_not_explain(theirs, found, is_missing):
    finding = check_clock("Kafka", 1_000, theirs, 1_010)
    assert finding.result == found
    assert bool(finding.remedy) == is_missing


def test_a_cluster_of_another_version_is_named():
    assert check_version("2.1.0", "2.2.1").remedy
    assert not check_version("2.2.1", "2.2.1").remedy


def test_slots_have_to_suffice_where_there_are_any():
    assert check_slots(4, {"slots-total": 4, "slots-available": 2}).remedy
    assert not check_slots(4, {"slots-total": 4, "slots-available": 4}).remedy
    assert not check_slots(4, {"slots-total": 0, "slots-available": 0}).remedy  # started as they are needed


def test_the_jars_in_lib_are_compared_with_those_that_were_built(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    jars = tmp_path / "build" / "jars" / "job"
    jars.mkdir(parents=True)
    for name in ("flink-sql-connector-kafka-5.0.0-2.2.jar", "batch-operators.jar"):
        (jars / name).touch()
    lib = ["/lib/flink-sql-connector-kafka-4.0.1-2.0.jar", "/lib/flink-python-2.2.1.jar"]
    connector, operators, python = check_jars(lib, "2.2.1")
    assert connector.remedy == "replace it with flink-sql-connector-kafka-5.0.0-2.2.jar, from build/jars/job"
    assert (operators.result, operators.remedy) == ("not in lib/", "one in lib/, from build/jars/job")
    assert not python.remedy
    (_, _, twice) = check_jars([*lib, "/lib/flink-python-2.2.0.jar"], "2.2.1")
    assert twice.remedy.startswith("one in lib/")


def test_the_shared_memory_of_a_task_manager_is_told_and_not_judged():
    settings = load_settings(CONF, ["workers.batch_bytes=1048576", "workers.cached_users=1"], {})
    slots = slots_of_task_manager({"slots-total": 7, "taskmanagers": 2})
    assert slots == 4
    finding = describe_shared_memory(settings, slots)
    assert finding.unknown
    assert finding.result == "25 MiB in /dev/shm for a TaskManager of 4 slots: not checked"
    assert slots_of_task_manager({"slots-total": 0, "taskmanagers": 0}) == 1  # started as they are needed


def test_checkpoints_need_a_directory_of_the_settings_or_of_the_cluster():
    settings = load_settings(CONF, (), {})
    assert check_checkpoint_dir(settings, None).unknown
    assert check_checkpoint_dir(settings, {}).remedy
    assert not check_checkpoint_dir(settings, {"execution.checkpointing.dir": "s3://b/c"}).remedy
    own = load_settings(CONF, ["checkpoints.dir=s3://b/own"], {})
    assert check_checkpoint_dir(own, {}).result == "s3://b/own"


def test_a_target_whose_broker_is_away_is_a_finding_and_the_settings_file_an_error(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("jobs.ops.doctor.kafka.TIMEOUT_MS", 200)
    bundle = ("--set", f"model.bundle={tmp_path}")
    assert main(["--conf", str(CONF), "--set", "kafka.bootstrap.servers=127.0.0.1:1", *bundle]) == 1
    printed = capsys.readouterr()
    assert "127.0.0.1:1 over PLAINTEXT: KafkaConnectionError: 111 ECONNREFUSED" in printed.out
    assert not printed.err
    assert main(["--conf", "nowhere.yaml"]) == 2


def test_what_is_unknown_is_neither_fine_nor_missing():
    assert str(Finding("clock", "cannot be determined", unknown=True)).startswith("unknown")
