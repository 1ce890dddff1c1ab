"""Unit tests compute on one thread: other processes with tests use the other cores.

With two, OpenMP's and BLAS' threads of each worker wait for each other actively. That took more than half of the time
of all tests.

Fixtures leave out what commands repeat in most tests and a few tests are about: the trial of a bundle in a process of
its own, the sync of files, the parsing of the same settings, plots.
"""

import gc
import os
from collections.abc import Iterator
from copy import deepcopy
from functools import lru_cache
from typing import Any

import pytest
from threadpoolctl import threadpool_limits

from jobs.common import settings
from training.rollout import admission
from udfs.config import reading
from udfs.models.bundle import read_bundle

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")  # of libraries that are loaded later, and of processes that tests start
threadpool_limits(1)  # of libraries that are loaded


def pytest_collection() -> None:
    gc.disable()


def pytest_collection_finish() -> None:
    """From now on, the garbage collector skips the modules and tests: their objects are many, and stay.

    It looks at all others whenever a quarter more have come: as few are left, that would be often.
    """
    gc.freeze()
    gc.set_threshold(50_000)
    gc.enable()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Iterator[None]:
    """The garbage collector works between tests, where the stack is shallow.

    While a parser is deep in a hostile record, it would leave the finalizers of other tests' garbage no room on the
    stack: the test would fail with their RecursionError.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


@pytest.fixture(autouse=True, scope="session")
def shortcuts() -> Iterator[None]:
    """Files need not reach the disk, and a text of YAML is parsed once."""
    parse = reading.parse_yaml
    parsed = lru_cache(parse)

    def copy_of_parsed(text: str) -> Any:
        try:
            return deepcopy(parsed(text))
        except RecursionError:  # copies need a deeper stack than the parser
            return parse(text)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: None)
        for module in (reading, settings):  # the second one parses conf/base.yaml
            patch.setattr(module, "parse_yaml", copy_of_parsed)
        yield


@pytest.fixture(autouse=True)
def trial_here(monkeypatch) -> None:
    """Check bundles in this process. tests/unit/training/rollout/test_trial.py is about trials in others."""

    def try_bundle(files, origin, history_length, _, check) -> None:
        check(read_bundle(files.__getitem__, origin, history_length))

    monkeypatch.setattr(admission, "try_bundle", try_bundle)


@pytest.fixture
def without_plots(monkeypatch) -> None:
    """Pages have empty plots: to draw them takes longer than most tests."""
    empty = "<svg></svg>"
    monkeypatch.setattr("training.reporting.plots.svg", lambda draw, title, **sizes: empty)
    monkeypatch.setattr("training.inspection.page._plot", lambda draw, found: empty)
