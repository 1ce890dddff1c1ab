"""Check whether this machine can build, test and run the project: `python -m tools.doctor`.

It needs only Python's standard library, so it runs before anything is installed. jobs/ops/doctor checks Kafka, model
and cluster instead.

Exit code: 0 nothing is missing; 1 something is.
"""

import argparse
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from jobs.ops.doctor.finding import Finding, mebibytes
from tools.paths import PROJECT, STACK

JAVA_VERSION = 17
#: Broker 1 GiB, JobManager 1 GiB, two TaskManagers of 3.4 GiB, their Python workers and the client.
MEMORY_GIB = 10
#: Slots of the local stack: two TaskManagers of two.
SLOTS = 4
#: Prints how many bytes of memory the Python workers of a slot share with their tasks, and where.
SHARED_MEMORY = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from jobs.common.settings import load_settings, shared_memory_bytes
settings = load_settings(Path(sys.argv[1]) / "conf" / "local.yaml")
print(shared_memory_bytes(settings), settings.workers.memory_dir)
"""
MORE_SHARED_MEMORY = (
    "docker run --shm-size=2g; docker compose: shm_size: 2gb; Kubernetes: an emptyDir of medium Memory at /dev/shm; "
    "or another workers.memory_dir, or fewer workers.cached_users"
)
BROWSER = ("chromium", "chromedriver")
DEFAULT_PORTS = {8081: "Flink", 9092: "Kafka"}


def check_prerequisites() -> Iterator[Finding]:
    """Check the prerequisites of a build."""
    yield check_python(output_of(["python3.11", "-c", "import ensurepip, sys, venv; print(sys.version.split()[0])"]))
    yield check_java("java", output_of([jdk_command("java"), "-version"]), "openjdk-17-jre-headless")
    yield check_java("javac", output_of([jdk_command("javac"), "-version"]), "openjdk-17-jdk-headless")
    yield check_maven(output_of(["mvn", "--version"]))


def check_machine() -> Iterator[Finding]:
    """Check memory, the ports that `make up` prefers, and the browser in which tests open the dashboard."""
    yield check_memory(available_memory_gib())
    own_ports = recorded_ports(STACK / "stack.json")
    for port, service in DEFAULT_PORTS.items():
        yield check_port(port, service, is_bound(port), own_ports)
    yield check_browser([command for command in BROWSER if shutil.which(command) is None])


def check_build() -> Iterator[Finding]:
    """Check the results of `make`, and whether the installed packages are the pinned ones."""
    python = venv_python()
    if python.exists():
        installed = output_of([str(python), "-m", "pip", "freeze", "--all"]) or ""
        yield check_pins((PROJECT / "requirements.txt").read_text(), installed)
        yield check_consistency(output_of([str(python), "-m", "pip", "check"]))
    else:
        yield Finding("Python packages", f"no {python.relative_to(PROJECT)}", "make venv")
    for subject, pattern, target in (
        ("job JARs", "build/jars/job/*.jar", "make jars"),
        ("Kafka JARs", "build/jars/kafka/*.jar", "make jars"),
        ("wheel", "dist/*.whl", "make wheel"),
    ):
        built = sorted(PROJECT.glob(pattern))
        yield Finding(subject, f"{len(built)} in {Path(pattern).parent}", "" if built else target)


def check_workers() -> Iterator[Finding]:
    """Check the shared memory that the Python workers of the score job need."""
    python = venv_python()
    if not python.exists():
        return
    answer = output_of([str(python), "-c", SHARED_MEMORY, str(PROJECT)])
    if answer is None:
        yield Finding("shared memory", "not checked: conf/local.yaml could not be read", unknown=True)
        return
    needed, _, directory = answer.partition(" ")
    yield check_shared_memory(Path(directory), SLOTS * int(needed))


def check_shared_memory(directory: Path, needed_bytes: int) -> Finding:
    """Check the directory of workers.memory_dir: it must have room for files of this size in bytes."""
    needed = f"{mebibytes(needed_bytes)} MiB needed"
    if not directory.is_dir() or not os.access(directory, os.W_OK | os.X_OK):
        remedy = "mount a file system in memory there, or name another directory in workers.memory_dir"
        return Finding("shared memory", f"{directory} is not a writable directory; {needed}", remedy)
    free_bytes = shutil.disk_usage(directory).free
    remedy = "" if free_bytes >= needed_bytes else MORE_SHARED_MEMORY
    return Finding("shared memory", f"{free_bytes >> 20} MiB free in {directory}, {needed}", remedy)


def check_python(version: str | None) -> Finding:
    remedy = "" if version else "apt-get install python3.11 python3.11-venv"
    return Finding("Python 3.11, venv", version or "none that runs", remedy)


def check_java(command: str, answer: str | None, package: str) -> Finding:
    """Check the output of `java -version` or `javac -version`: `openjdk version "17.0.15"`, `javac 17.0.15`."""
    # Above it, java may say that it has picked up options.
    match = re.search(r'(?:^javac |^\w+ version ")((\d+)[\d._]*)', answer or "", re.MULTILINE)
    if match is None:
        return Finding(f"{command} {JAVA_VERSION}+", "none that runs", f"apt-get install {package}, or set JAVA_HOME")
    if int(match[2]) < JAVA_VERSION:
        return Finding(f"{command} {JAVA_VERSION}+", match[1], f"apt-get install {package}, and point JAVA_HOME to it")
    return Finding(f"{command} {JAVA_VERSION}+", match[1])


def check_maven(answer: str | None) -> Finding:
    match = re.search(r"Apache Maven (\d[\w.-]*)", answer or "")
    return Finding("Maven", match[1]) if match else Finding("Maven", "none that runs", "apt-get install maven")


def check_memory(available_gib: float | None) -> Finding:
    if available_gib is None:
        return Finding("memory", f"can't tell on {sys.platform}; broker and cluster take up to {MEMORY_GIB} GiB")
    enough = available_gib >= MEMORY_GIB
    remedy = "free some, or start less: python -m tools.stack up --task-managers 1 --task-manager-memory 2g"
    return Finding("memory", f"{available_gib:.1f} GiB available of {MEMORY_GIB} needed", "" if enough else remedy)


def check_browser(missing: list[str]) -> Finding:
    if missing:
        return Finding("tests' browser", f"no {', no '.join(missing)}", "apt-get install chromium chromium-driver")
    return Finding("tests' browser", "Chromium and its driver")


def check_port(port: int, service: str, bound: bool, own_ports: set[int]) -> Finding:
    """Report the state of a port; one that another program holds is no fault: `make up` picks another."""
    if not bound:
        state = "free"
    elif port in own_ports:
        state = "used by this project's local stack"
    else:
        state = "used by another program; make up picks another"
    return Finding(f"port {port} ({service})", state)


def check_pins(requirements: str, installed: str) -> Finding:
    """Compare the lines of requirements.txt with those of `pip freeze --all`."""
    pinned, present = pins(requirements.splitlines()), pins(installed.splitlines())
    wrong = sorted(f"{name} {present.get(name, 'missing')}" for name in pinned if present.get(name) != pinned[name])
    if wrong:
        return Finding("pinned packages", f"not as in requirements.txt: {', '.join(wrong)}", "rm -r .venv && make venv")
    return Finding("pinned packages", f"{len(pinned)} as in requirements.txt")


def check_consistency(answer: str | None) -> Finding:
    if answer is None:
        return Finding("pip check", "installed packages conflict with each other", "rm -r .venv && make venv")
    return Finding("pip check", "no conflicts")


def pins(lines: Iterable[str]) -> dict[str, str]:
    """Versions by normalised package name (PEP 503) of lines like `PyYAML==6.0.3 \\`, without the hashes below them."""
    words = (line.split("#")[0].split() for line in lines)
    split = (first.partition("==") for first, *_ in filter(None, words))
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, equals, version in split if equals}


def jdk_command(name: str) -> str:
    home = os.environ.get("JAVA_HOME")
    return f"{home}/bin/{name}" if home else name


def venv_python() -> Path:
    """The Python of the virtual environment: this one, or else that of `make venv`."""
    return Path(sys.executable) if sys.prefix != sys.base_prefix else PROJECT / ".venv" / "bin" / "python"


def output_of(command: list[str]) -> str | None:
    """The output of a command; None if it is missing or fails."""
    if shutil.which(command[0]) is None:
        return None
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def available_memory_gib() -> float | None:
    try:
        match = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    except FileNotFoundError:  # not Linux
        return None
    return int(match[1]) / 2**20 if match else None


def is_bound(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def recorded_ports(record: Path) -> set[int]:
    """The ports of the stack that tools.stack has recorded; empty if there is none, or it can't be read."""
    try:
        return {port for process in json.loads(record.read_text()) for port in process["ports"].values()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):  # `make status` says what to do about it
        return set()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="tools.doctor", description="List what is missing, and how to get it.")
    parser.add_argument("--prerequisites", action="store_true", help="check only what a build needs")
    options = parser.parse_args(arguments)
    findings = list(check_prerequisites())
    if not options.prerequisites:
        findings += [*check_machine(), *check_build(), *check_workers()]
    missing = [finding for finding in findings if finding.remedy]
    for finding in missing if options.prerequisites else findings:
        print(finding)
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
