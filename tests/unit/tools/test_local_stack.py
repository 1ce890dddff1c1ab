import json
import os
import signal
import socket
import subprocess
import sys
import uuid
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import yaml

from tools.paths import PROJECT
from tools.stack import __main__ as command
from tools.stack import broker, local_stack
from tools.stack.broker import broker_properties, format_storage, java, new_cluster_id
from tools.stack.cluster import cluster_options, flink_environment, prepare_cluster
from tools.stack.local_stack import LocalStack, StackError
from tools.stack.processes import Process, ProcessError, is_running, kill, start, stop, wait_until

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(60)",
]
PARENT = [
    sys.executable,
    "-c",
    "import subprocess, time\n"
    "print(subprocess.Popen(['sleep', '60'], start_new_session=True).pid, flush=True)\n"
    "time.sleep(60)",
]


@pytest.fixture
def launch(tmp_path):
    """Starts processes that are gone after the test, whatever it does."""
    started = []

    def launch(command=SLEEP, name="process", **ports) -> Process:
        started.append(start(name, command, tmp_path / "log" / f"{name}.log", tmp_path, os.environ, ports))
        return started[-1]

    yield launch
    stop(started, grace_seconds=0)


def log_of(process: Process) -> str:
    return Path(process.log).read_text()


def has_printed(process: Process) -> None:
    wait_until(lambda: log_of(process).endswith("\n"), process, 30)


def record(directory: Path, *processes: Process) -> None:
    entries = [{**vars(process), "ports": dict(process.ports)} for process in processes]
    (directory / "stack.json").write_text(json.dumps(entries))


def test_a_started_process_runs_until_it_is_stopped(launch):
    process = launch()
    assert is_running(process)
    stop([process])
    assert not is_running(process)
    assert not psutil.pid_exists(process.pid)


def test_a_process_that_ignores_the_request_to_end_is_killed_after_the_grace(launch):
    process = launch(STUBBORN)
    has_printed(process)
    stop([process], grace_seconds=0.2)
    assert not is_running(process)


def test_stopping_a_process_ends_what_it_started_even_in_another_session(launch):
    process = launch(PARENT)
    has_printed(process)
    child = psutil.Process(int(log_of(process)))
    stop([process])
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_what_a_killed_process_had_started_is_still_found_when_it_is_stopped(launch):
    process = launch(PARENT)
    has_printed(process)
    child = psutil.Process(int(log_of(process)))
    kill(process)
    assert child.is_running()
    stop([process])
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_a_process_that_has_got_the_pid_of_an_ended_one_is_left_alone(launch):
    stranger = launch()
    ended = replace(stranger, created=stranger.created - 100, marker="of the one that has ended")
    assert not is_running(ended)
    stop([ended])
    kill(ended)
    assert is_running(stranger)


def test_an_ended_process_that_nobody_has_waited_for_does_not_run(launch):
    process = launch()
    os.kill(process.pid, signal.SIGKILL)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert psutil.Process(process.pid).status() == psutil.STATUS_ZOMBIE
    assert not is_running(process)


def test_a_process_that_ends_while_starting_is_reported_with_the_end_of_its_log(launch):
    process = launch([sys.executable, "-c", "print('the disk is full')"], name="broker")
    with pytest.raises(ProcessError, match=r"broker exited while starting\n  \| the disk is full\n  log: .*broker"):
        wait_until(lambda: False, process, 30)


def test_a_process_that_is_not_ready_in_time_is_reported(launch):
    with pytest.raises(ProcessError, match="broker was not ready after 0 s"):
        wait_until(lambda: False, launch(name="broker"), 0)


def test_the_broker_and_the_cluster_serve_this_machine_only(tmp_path):
    properties = broker_properties(9092, [9093], tmp_path, partitions=3)
    assert properties["listeners"] == "PLAINTEXT://127.0.0.1:9092,CONTROLLER://127.0.0.1:9093"
    options = cluster_options(tmp_path, 8081, 6123, 2, "3g")
    assert {options[key] for key in options if key.endswith(("host", "address"))} == {"127.0.0.1"}


def test_one_of_several_brokers_may_be_lost_and_what_is_written_is_at_two(tmp_path):
    one = broker_properties(9092, [9093], tmp_path, 4)
    three = [broker_properties(9092 + node, [1, 2, 3], tmp_path, 4, node=node) for node in (1, 2, 3)]
    assert {properties["node.id"] for properties in three} == {1, 2, 3}
    for properties in three:
        assert properties["controller.quorum.voters"] == "1@127.0.0.1:1,2@127.0.0.1:2,3@127.0.0.1:3"
        assert f"CONTROLLER://127.0.0.1:{properties['node.id']}" in properties["listeners"]
        for key, number in properties.items():
            if key.endswith("replication.factor"):
                assert (number, one[key]) == (3, 1)
            if key.endswith(("min.isr", "min.insync.replicas")):
                assert (number, one[key]) == (2, 1)


def test_a_cluster_has_flink_with_python_and_the_jobs_jars_in_its_own_lib(tmp_path):
    (tmp_path / "jars").mkdir()
    (tmp_path / "jars" / "batch-operators.jar").touch()
    prepare_cluster(tmp_path / "stack", [tmp_path / "jars"], {"rest.port": 1, "env.java.opts.all": "-Da " * 100})
    jars = {jar.name.rstrip("0123456789.-jar") for jar in (tmp_path / "stack" / "lib").iterdir()}
    assert {"flink-dist", "flink-python", "batch-operators"} <= jars
    written = (tmp_path / "stack" / "conf" / "config.yaml").read_text()
    assert yaml.safe_load(written) == {"rest.port": 1, "env.java.opts.all": "-Da " * 100}
    assert len(written.splitlines()) == 2  # Flink's shell scripts read the file line by line


def test_a_cluster_without_the_jobs_jars_is_refused(tmp_path):
    with pytest.raises(ProcessError, match="nothing: no .*jar found; run `make jars`"):
        prepare_cluster(tmp_path / "stack", [tmp_path / "nothing"], {})


def test_a_directory_that_flinks_scripts_cannot_handle_is_refused(tmp_path):
    with pytest.raises(ProcessError, match="paths with spaces"):
        prepare_cluster(tmp_path / "my stack", [tmp_path], {})


def test_python_workers_do_not_import_from_where_the_caller_stands(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/repository")
    monkeypatch.setenv("FLINK_OPT_DIR", "/another/flink")
    environment = flink_environment(tmp_path)
    assert "PYTHONPATH" not in environment
    assert "FLINK_OPT_DIR" not in environment


def test_java_of_java_home_goes_before_that_of_path(tmp_path, monkeypatch):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "java").touch(mode=0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    assert java() == str(tmp_path / "bin" / "java")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "gone"))
    with pytest.raises(ProcessError, match="java not found in .*gone"):
        java()


def test_a_default_port_that_is_taken_is_passed_over(tmp_path):
    stack = LocalStack(tmp_path, prefer_default_ports=True)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert stack._free_port(port) != port
    assert stack._free_port(port) == port
    assert stack._free_port(port) != port  # given away


def test_a_stack_without_its_jars_says_how_to_get_them_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(local_stack, "JARS", tmp_path / "jars")
    with pytest.raises(StackError, match="make jars"):
        LocalStack(tmp_path / "stack").start()
    assert not (tmp_path / "stack" / "stack.json").exists()


def test_a_stack_that_is_up_is_not_started_twice(tmp_path, launch, capsys):
    broker, job_manager = launch(name="broker", kafka=9092), launch(name="jobmanager", rest=8081)
    record(tmp_path, broker, job_manager)
    assert command.main(["up", "--dir", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "already running" in printed
    assert "http://127.0.0.1:8081" in printed
    assert is_running(broker)


def test_a_stack_of_which_a_part_has_ended_has_to_be_stopped_first(tmp_path, launch, capsys):
    broker, job_manager = launch(name="broker", kafka=9092), launch(name="jobmanager", rest=8081)
    record(tmp_path, broker, job_manager)
    kill(job_manager)
    assert command.main(["status", "--dir", str(tmp_path)]) == 1
    assert "exited" in capsys.readouterr().out
    assert command.main(["up", "--dir", str(tmp_path)]) == 2
    assert "make down" in capsys.readouterr().err
    assert is_running(broker)


def test_down_ends_what_an_earlier_command_started_and_may_be_repeated(tmp_path, launch, capsys):
    broker = launch(name="broker", kafka=9092)
    record(tmp_path, broker)
    assert command.main(["down", "--dir", str(tmp_path)]) == 0
    assert not is_running(broker)
    assert command.main(["down", "--dir", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "stopped broker\nnothing is running\n"
    assert command.main(["status", "--dir", str(tmp_path)]) == 1


def test_a_broken_record_is_named_in_one_line(tmp_path, capsys):
    (tmp_path / "stack.json").write_text("[{}]")
    assert command.main(["down", "--dir", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "stack.json" in error
    assert error.count("\n") == 1


def test_a_broker_that_was_never_started_has_no_address(tmp_path):
    with pytest.raises(StackError, match="broker was not started there"):
        _ = LocalStack(tmp_path).bootstrap_servers


def test_the_command_runs_as_a_module(tmp_path):
    command = [sys.executable, "-m", "tools.stack", "status", "--dir", str(tmp_path)]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "")


def test_a_cluster_id_that_begins_with_a_hyphen_is_not_taken_for_an_option(tmp_path, monkeypatch):
    commands = []

    def run(command, **_):
        commands.append(command)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(broker.uuid, "uuid4", lambda: uuid.UUID(bytes=b"\xfb" * 16))
    monkeypatch.setattr(broker.subprocess, "run", run)
    format_storage(tmp_path, {"log.dirs": tmp_path / "data"}, tmp_path / "server.properties", new_cluster_id())
    assert any(word.startswith("--cluster-id=-") for word in commands[0])
