"""One retraining at a time: between threads, processes, machines, and after a crash."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from itertools import count
from threading import Barrier

import msgspec
import pytest

from training.retraining import lock as lock_module
from training.retraining.lock import DIRECTORY, Holder, LockError, locked
from training.rollout.atomic_files import replace_file
from udfs.rollout.registry import Registry

HOUR_MS = 3_600_000
_NAMES = count()


@pytest.fixture(params=["path", "memory"])
def registry(request, tmp_path) -> Registry:
    return Registry(str(tmp_path) if request.param == "path" else f"memory://locked-{next(_NAMES)}")


def holder_of(registry: Registry) -> Holder:
    return msgspec.json.decode(registry.read(DIRECTORY, registry.names(DIRECTORY)[-1]), type=Holder)


def hold(registry: Registry, **changes) -> None:
    """The lock as another process would have left it."""
    with locked(registry, HOUR_MS):
        holder = msgspec.structs.replace(holder_of(registry), **changes)
    replace_file(registry, (*DIRECTORY.split("/"), registry.names(DIRECTORY)[-1]), msgspec.json.encode(holder))


def test_a_second_one_is_refused_while_the_first_one_holds_and_not_later(registry):
    with (
        locked(registry, HOUR_MS),
        pytest.raises(LockError, match=r"one retraining at a time: \w+@.* has not finished"),
        locked(Registry(registry.uri), HOUR_MS),
    ):
        pass
    with locked(registry, HOUR_MS):
        pass
    assert holder_of(registry).released is not None


@pytest.mark.parametrize("left", [{}, {"process": "1"}], ids=["free", "left by a crash"])
def test_of_many_threads_that_begin_at_once_one_gets_it(registry, left):
    if left:
        hold(registry, **left)
    barrier = Barrier(8)

    def begin(_number: int) -> bool:
        own = Registry(registry.uri)
        barrier.wait()
        try:
            with locked(own, HOUR_MS):
                barrier.wait()
                return True
        except LockError:
            barrier.wait()
            return False

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(begin, range(8))) == 1


@pytest.mark.slow
def test_a_process_that_ended_without_letting_go_is_no_obstacle(tmp_path):
    code = (
        "import os, sys; from training.retraining.lock import locked; from udfs.rollout.registry import Registry\n"
        "with locked(Registry(sys.argv[1]), 3_600_000): os._exit(9)"
    )
    ended = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    registry = Registry(str(tmp_path))
    assert (ended.returncode, holder_of(registry).released) == (9, None)
    with locked(registry, HOUR_MS):
        assert holder_of(registry).pid != 0
    assert len(registry.names(DIRECTORY)) == 1


def test_a_process_whose_number_went_to_another_one_is_no_obstacle(registry):
    hold(registry, process="1")
    with locked(registry, HOUR_MS):
        pass


@pytest.mark.parametrize(("hours", "is_free"), [(0.9, False), (1.1, True)])
def test_a_process_that_cannot_be_seen_holds_until_the_limit(registry, hours, is_free):
    hold(registry, system="another machine", started=datetime.now(UTC) - timedelta(hours=hours))
    if is_free:
        with locked(registry, HOUR_MS):
            pass
    else:
        with pytest.raises(LockError), locked(registry, HOUR_MS):
            pass


def test_who_was_thought_dead_finds_out_before_it_changes_anything(registry, monkeypatch):
    with locked(registry, HOUR_MS) as slow:
        slow.check()
        monkeypatch.setattr(lock_module, "process_start", lambda pid: "2")
        with locked(Registry(registry.uri), HOUR_MS), pytest.raises(LockError, match="another process took over"):
            slow.check()
