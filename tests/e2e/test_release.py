"""A release is all that a cluster needs of the project: what is submitted here is out of its archive."""

import json
import subprocess
import time

import pytest

from tools.stack import flink_client

pytestmark = pytest.mark.e2e


def test_what_is_in_the_archive_is_whole_and_runs_on_a_cluster_of_its_own(release, stack, pipeline):
    check = subprocess.run(
        ["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=release, capture_output=True, check=False
    )
    assert check.returncode == 0, check.stdout + check.stderr
    in_lib = {jar.resolve() for jar in (stack.directory / "lib").iterdir()}
    assert {jar.resolve() for jar in (release / "jars").iterdir()} < in_lib

    pipe = pipeline()
    (wheel,) = (release / "wheel").iterdir()
    pipe.job = flink_client.submit(stack, release / "conf" / "local.yaml", pipe.overrides, wheel=wheel)
    flink_client.wait_until_running(stack, pipe.job)
    click = {"user_id": "ada", "event_name": "view_item", "event_time": time.time_ns() // 1_000_000}
    pipe.send("clicks", [(b"ada", json.dumps(click).encode(), None)])
    assert pipe.read("scores", at_least=1)[0]["user_id"] == "ada"
