import json
import re
import runpy
import socket
import subprocess
import sys

import pytest
from packaging.requirements import Requirement

from tools import doctor

FREEZE = "numpy==2.1.3\nPyYAML==6.0.3\n"


@pytest.mark.parametrize(
    "answer",
    [
        'openjdk version "17.0.15" 2025-04-15\nOpenJDK Runtime',
        'NOTE: Picked up JDK_JAVA_OPTIONS: -Xmx9g\nopenjdk version "21" 2023-09-19',
        "javac 17.0.15",
    ],
)
def test_a_jdk_of_17_or_later_is_fine(answer):
    assert not doctor.check_java("java", answer, "package").remedy


@pytest.mark.parametrize("answer", [None, 'java version "1.8.0_392"', "javac 11.0.2"])
def test_an_older_or_missing_jdk_is_named_with_its_package(answer):
    assert (
        "apt-get install openjdk-17-jdk-headless"
        in doctor.check_java("javac", answer, "openjdk-17-jdk-headless").remedy
    )


def test_maven_is_found_by_its_version_even_when_it_prints_in_colour():
    assert doctor.check_maven("\x1b[1mApache Maven 3.8.7\x1b[m\nMaven home").result == "3.8.7"
    assert doctor.check_maven(None).remedy == "apt-get install maven"


def test_the_browser_of_the_tests_is_named_with_its_packages():
    assert doctor.check_browser(["chromedriver"]).remedy == "apt-get install chromium chromium-driver"
    assert not doctor.check_browser([]).remedy


def test_missing_python_is_named_with_its_packages():
    assert doctor.check_python(None).remedy == "apt-get install python3.11 python3.11-venv"


def test_too_little_memory_comes_with_a_smaller_stack_to_start():
    assert "--task-managers 1" in doctor.check_memory(doctor.MEMORY_GIB - 1).remedy
    assert not doctor.check_memory(doctor.MEMORY_GIB + 1).remedy
    assert not doctor.check_memory(None).remedy


def test_a_port_is_told_free_ours_or_anothers():
    assert doctor.check_port(9092, "Kafka", bound=False, own_ports=set()).result == "free"
    assert doctor.check_port(9092, "Kafka", bound=True, own_ports={9092}).result == "used by this project's local stack"
    assert "another program" in doctor.check_port(9092, "Kafka", bound=True, own_ports={8081}).result


def test_a_listening_port_counts_as_bound():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        assert doctor.is_bound(port)
    assert not doctor.is_bound(port)


def test_the_ports_of_the_local_stack_are_read_from_its_record(tmp_path):
    record = tmp_path / "stack.json"
    assert doctor.recorded_ports(record) == set()
    record.write_text(json.dumps([{"name": "broker", "ports": {"kafka": 9092, "controller": 20001}}]))
    assert doctor.recorded_ports(record) == {9092, 20001}
    for broken in ("", "[{}]", "{"):
        record.write_text(broken)
        assert doctor.recorded_ports(record) == set()


def test_pins_are_compared_by_normalised_name():
    assert not doctor.check_pins("# comment\nnumpy==2.1.3\npyyaml==6.0.3  # note\n", FREEZE).remedy


def test_packages_that_differ_from_their_pins_are_listed():
    found = doctor.check_pins("numpy==2.1.2\npyyaml==6.0.3\npandas==2.2.3\n", FREEZE)
    assert found.result == "not as in requirements.txt: numpy 2.1.3, pandas missing"
    assert found.remedy


def test_the_hashes_below_a_pin_are_no_part_of_it():
    hashed = "numpy==2.1.3 \\\n    --hash=sha256:0a1b \\\n    --hash=sha256:2c3d\n"
    assert doctor.pins(hashed.splitlines()) == {"numpy": "2.1.3"}


def test_every_pin_has_hashes_and_no_package_index_is_named():
    text = (doctor.PROJECT / "requirements.txt").read_text()
    entries = re.split(r"\n(?=\S)", text.strip())[1:]
    assert len(entries) == len(doctor.pins(text.splitlines()))
    for entry in entries:
        assert re.fullmatch(r"[\w.-]+==[\w.+!-]+( \\\n    --hash=sha256:[0-9a-f]{64})+", entry), entry[:200]


def test_a_command_that_is_not_there_or_fails_has_no_output():
    assert doctor.output_of(["no-such-command-here"]) is None
    assert doctor.output_of([sys.executable, "-c", "raise SystemExit(1)"]) is None
    assert doctor.output_of([sys.executable, "-c", "print('said')"]) == "said"


def test_a_finding_says_what_to_do_only_when_something_is_missing():
    assert str(doctor.Finding("Maven", "3.8.7")).startswith("ok ")
    assert str(doctor.Finding("Maven", "none", "apt-get install maven")).endswith("none -> apt-get install maven")


@pytest.mark.slow
def test_the_doctor_needs_nothing_but_the_standard_library():
    bare = [sys.executable, "-S", "-m", "tools.doctor", "--prerequisites"]
    done = subprocess.run(bare, cwd=doctor.PROJECT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_every_requirement_of_setup_py_is_pinned_within_its_range(monkeypatch):
    monkeypatch.chdir(doctor.PROJECT)
    declared = {}
    monkeypatch.setattr("setuptools.setup", lambda **arguments: declared.update(arguments))
    runpy.run_path("setup.py")
    pinned = doctor.pins((doctor.PROJECT / "requirements.txt").read_text().splitlines())
    for line in [*declared["install_requires"], *declared["extras_require"]["dev"]]:
        requirement = Requirement(line)
        (name,) = doctor.pins([f"{requirement.name}==0"])
        assert requirement.specifier.contains(pinned[name]), line


def test_the_java_class_is_compiled_against_the_flink_that_is_installed():
    pom = (doctor.PROJECT / "pom.xml").read_text()
    pinned = doctor.pins((doctor.PROJECT / "requirements.txt").read_text().splitlines())
    assert re.search(r"<flink.version>(.*)</flink.version>", pom)[1] == pinned["apache-flink"]


def test_shared_memory_that_does_not_suffice_is_named_with_ways_to_more(tmp_path):
    assert not doctor.check_shared_memory(tmp_path, 1).remedy
    finding = doctor.check_shared_memory(tmp_path, 1 << 60)
    assert finding.result.endswith(f"MiB free in {tmp_path}, 1099511627776 MiB needed")
    for way in ("--shm-size=2g", "shm_size: 2gb", "emptyDir", "workers.memory_dir", "workers.cached_users"):
        assert way in finding.remedy


def test_a_memory_directory_that_is_not_there_is_named(tmp_path):
    finding = doctor.check_shared_memory(tmp_path / "none", 1)
    assert finding.result == f"{tmp_path / 'none'} is not a writable directory; 1 MiB needed"
    assert "workers.memory_dir" in finding.remedy


def test_what_the_local_stack_needs_of_shared_memory_is_read_from_its_settings(monkeypatch):
    monkeypatch.setenv("INTENT_WORKERS__MEMORY_DIR", "/no such directory")
    monkeypatch.setenv("INTENT_WORKERS__BATCH_BYTES", str(1 << 20))
    monkeypatch.setenv("INTENT_WORKERS__CACHED_USERS", "1")
    (finding,) = doctor.check_workers()
    assert finding.result.startswith("/no such directory is not a writable directory")
    assert finding.result.endswith("; 25 MiB needed")
