"""What the job remembers: through upgrades everything, of idle users nothing."""

import json
import shutil
import subprocess
import sys
import time
from base64 import b64decode
from pathlib import Path

import numpy as np
import pytest

from tests.support.e2e.pipeline import Pipeline
from tools.stack.flink_client import wait_for
from udfs.features.declaration import STANDARD

pytestmark = pytest.mark.e2e

PROJECT = Path(__file__).parents[2]
NEW_FEATURE = "history_bytes"
TTL_SECONDS = 15


def click(user: str) -> tuple[bytes, bytes, None]:
    now = time.time_ns() // 1_000_000
    return user.encode(), json.dumps({"user_id": user, "event_name": "view_item", "event_time": now}).encode(), None


def logged_features(pipe: Pipeline, count: int, names: tuple[str, ...]) -> list[dict[str, float]]:
    """The feature vectors of the log, in the order of the clicks' offsets."""
    entries = sorted(pipe.read("feature_log", at_least=count), key=lambda entry: entry["source_offset"])
    return [dict(zip(names, np.frombuffer(b64decode(entry["features"]), np.float32).tolist())) for entry in entries]


def test_a_new_model_and_new_feature_code_go_on_with_the_old_state(pipeline, run_directory):
    pipe = pipeline("feature_log.user_share=1.0", partitions=1)
    pipe.start()
    pipe.send("clicks", [click("ada") for _ in range(100)])
    pipe.read("scores", at_least=100)
    savepoint = pipe.stop()

    wheel, bundle = release_with_a_new_feature(run_directory / "new-release")
    pipe.start(f"model.bundle={bundle}", savepoint=savepoint, wheel=wheel)
    pipe.send("clicks", [click("ada")])
    names = tuple(json.loads((bundle / "manifest.json").read_text())["features"])
    newest = logged_features(pipe, 101, names)[-1]
    assert newest["lifetime_events"] == 101
    assert newest["history_events"] == 64
    assert newest[NEW_FEATURE] == 64 * 32
    assert pipe.read("scores", at_least=101)[-1]["model_version"] == "new-release"


def release_with_a_new_feature(directory: Path) -> tuple[Path, Path]:
    """The project with one more feature, as a wheel, and a model that uses it."""
    for name in ("jobs", "udfs", "training"):
        shutil.copytree(PROJECT / name, directory / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml"):
        shutil.copy(PROJECT / name, directory)
    insert_before(
        directory / "udfs" / "features" / "catalog.py",
        '        ("saturated", ',
        f'        ("{NEW_FEATURE}", "bytes", "size of the history kept", Need.NOTHING),\n',
    )
    insert_before(
        directory / "udfs" / "features" / "kernel.py",
        "    row[Column.saturated] = ",
        f"    row[Column.{NEW_FEATURE}] = kept * 32\n",
    )
    train = [
        "training.train",
        "--simulate",
        "--users",
        "1000",
        "--hours",
        "12",
        "--set",
        "rounds=5",
        "--set",
        "prune=false",
    ]
    run_python(directory, *train, "--version", "new-release", "--out", "bundle")
    run_python(directory, "build", "--wheel", "--no-isolation", "--outdir", "dist", ".")
    return next((directory / "dist").glob("*.whl")), directory / "bundle"


def insert_before(file: Path, marker: str, text: str) -> None:
    content = file.read_text()
    assert content.count(marker) == 1
    file.write_text(content.replace(marker, text + marker))


def run_python(directory: Path, *module_and_arguments: str) -> None:
    command = [sys.executable, "-m", *module_and_arguments]
    ran = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_the_state_of_idle_users_is_gone_after_its_time_to_live(pipeline, stack):
    pipe = pipeline(f"state.ttl={TTL_SECONDS} s", "state.backend=hashmap", "feature_log.user_share=1.0", partitions=1)
    pipe.start()
    pipe.send("clicks", [click(f"u{number}") for number in range(5_000) for _ in range(4)])
    pipe.wait_until_consumed("clicks")
    full = checkpointed_bytes(stack, pipe)
    assert full > 5_000 * 4 * 32

    time.sleep(TTL_SECONDS + 1)  # nothing tells of an expiry: state is there, but not looked at
    pipe.send("clicks", [click("u7")])
    newest = logged_features(pipe, 20_001, STANDARD.names)[-1]
    assert (newest["lifetime_events"], newest["history_events"]) == (1, 1)

    # Each event sweeps some expired users out of its task's memory; fifty users keep both tasks at it.
    pipe.send("clicks", [click(f"busy{number % 50}") for number in range(5_000)])
    # What stays: the busy users' histories (100 kB) and what a job without any state checkpoints (60 kB).
    wait_for(lambda: checkpointed_bytes(stack, pipe) < full / 5, 60, "the state to be swept out")


def checkpointed_bytes(stack, pipe: Pipeline) -> int:
    """The size of the latest checkpoint, which is a whole one for state on the heap."""
    return stack.rest(f"/jobs/{pipe.job}/checkpoints")["latest"]["completed"]["state_size"]
