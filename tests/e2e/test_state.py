"""What the job remembers: through upgrades everything, of idle users nothing."""

import json
import time
from base64 import b64decode

import numpy as np
import pytest

from tests.support.e2e.pipeline import Pipeline
from tests.support.own_features import DECLARATION, OWN, own_bundle, write_declaration
from tools.stack.flink_client import wait_for
from udfs.features.declaration_file import STANDARD, load_declaration
from udfs.rollout.assignment import in_sample

pytestmark = pytest.mark.e2e

#: Without the function, which the cluster would need the tests for.
ON_A_CLUSTER = "\n".join(line for line in DECLARATION.splitlines() if "python:" not in line)
NAMES = (*OWN, "lifetime_events", "history_events", "events_24h")
TTL_SECONDS = 15


def click(user: str, **fields) -> tuple[bytes, bytes, None]:
    click_ = {"user_id": user, "event_name": "view_item", "event_time": time.time_ns() // 1_000_000, **fields}
    return user.encode(), json.dumps(click_).encode(), None


def logged_features(pipe: Pipeline, count: int, names: tuple[str, ...]) -> list[dict[str, float]]:
    """The feature vectors of the log, in the order of the clicks' offsets."""
    entries = sorted(pipe.read("feature_log", at_least=count), key=lambda entry: entry["source_offset"])
    return [dict(zip(names, np.frombuffer(b64decode(entry["features"]), np.float32).tolist())) for entry in entries]


def test_a_new_model_its_features_and_its_columns_go_on_with_the_old_state(pipeline, run_directory):
    pipe = pipeline("feature_log.user_share=1.0", partitions=1)
    pipe.start()
    pipe.send("clicks", [click("ada") for _ in range(100)])
    pipe.read("scores", at_least=100)
    savepoint = pipe.stop()

    declaration = write_declaration(run_directory, ON_A_CLUSTER)
    bundle = own_bundle(run_directory, "own", load_declaration(declaration), NAMES)
    own = f"model.bundle={bundle}", f"clicks.declaration={declaration}", "state.new_columns=empty"
    pipe.start(*own, savepoint=savepoint)
    pipe.send("clicks", [click("ada", event_name="quiz_completed", coupon_id="SUMMER", plan="pro") for _ in range(2)])
    newest = logged_features(pipe, 102, NAMES)[-1]
    assert (newest["lifetime_events"], newest["history_events"], newest["events_24h"]) == (102, 64, 64)
    assert (newest["quizzes_2h"], newest["quizzes_2d"], newest["same_coupon"], newest["plan"]) == (2, 2, 2, 2)
    assert [score["event_name"] for score in pipe.read("scores", at_least=102)[-2:]] == ["quiz_completed"] * 2


def test_the_state_of_idle_users_is_gone_after_its_time_to_live(pipeline, stack):
    share, users = 0.01, [f"u{number}" for number in range(5_000)]
    logged = [user for user in users if in_sample(user, share)]
    ttl = f"state.ttl={TTL_SECONDS} s"
    pipe = pipeline(ttl, "state.backend=hashmap", f"feature_log.user_share={share}", partitions=1)
    pipe.start()
    pipe.send("clicks", [click(user) for user in users for _ in range(4)])
    pipe.wait_until_consumed("clicks")
    full = checkpointed_bytes(stack, pipe)
    assert full > 5_000 * 4 * 32

    time.sleep(TTL_SECONDS + 1)  # nothing tells of an expiry: state is there, but not looked at
    pipe.send("clicks", [click(logged[7])])
    newest = logged_features(pipe, 4 * len(logged) + 1, STANDARD.names)[-1]
    assert (newest["lifetime_events"], newest["history_events"]) == (1, 1)

    # Each event sweeps some expired users out of its task's memory.
    pipe.send("clicks", [click(f"busy{number % 50}") for number in range(5_000)])
    # What stays: the busy users' histories (100 kB) and what a job without any state checkpoints (60 kB).
    wait_for(lambda: checkpointed_bytes(stack, pipe) < full / 5, 60, "the state to be swept out")


def checkpointed_bytes(stack, pipe: Pipeline) -> int:
    """The size of the latest checkpoint, which is a whole one for state on the heap."""
    return stack.rest(f"/jobs/{pipe.job}/checkpoints")["latest"]["completed"]["state_size"]
