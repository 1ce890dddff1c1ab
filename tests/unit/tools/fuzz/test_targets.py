"""Each fuzz target keeps its contract for its corpus and some mutations of it."""

import json
import tempfile

import pytest

from tests.support.sample_records import NOW_MS
from tools.fuzz.engine import fuzz
from tools.fuzz.hostile_records import LARGEST_BYTES, hostile_clicks
from tools.fuzz.targets import TARGETS, make_target
from tools.fuzz.targets.clicks import JSON_CORPUS, opened
from udfs.contracts.rejects import Reason
from udfs.mapping.topic import ClickTopic
from udfs.workers.decode import DEAD_LETTERS, ROWS, ClickHandler

#: Inputs of the targets that take milliseconds for one.
FEW = {
    "settings": 40, "training": 40, "retraining": 10, "mappings": 20, "declarations": 20, "bundles": 150,
    "rollouts": 30, "kpis": 30, "labels": 30, "dashboard-records": 100, "dashboard-requests": 100,
}  # fmt: skip
HOSTILE = 2_000


@pytest.fixture(autouse=True)
def _files_are_removed(monkeypatch):
    with tempfile.TemporaryDirectory(prefix="fuzz-") as directory:  # not under tmp_path: a socket's path is short
        monkeypatch.setattr(tempfile, "tempdir", directory)
        yield


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_keeps_its_contract(name):
    findings = fuzz(make_target(name), FEW.get(name, 200), 7)
    assert not findings.crashes, findings.crashes
    assert len(findings.outcomes) > 1


def test_each_hostile_record_is_a_row_or_a_dead_letter_with_a_reason():
    process = opened(ClickHandler("clicks", ClickTopic()))
    reasons = set()
    for record in hostile_clicks(HOSTILE, 1):
        ((output, content),) = process(None, record)
        assert output in (ROWS, DEAD_LETTERS)
        if output == DEAD_LETTERS:
            letter = json.loads(content[4:])
            assert letter["message"]
            reasons.add(letter["reason"])
    assert len(reasons) >= 10
    assert reasons <= set(Reason)


def test_hostile_records_are_the_same_for_a_seed_and_of_the_time_that_is_asked_for():
    assert hostile_clicks(50, 1) == hostile_clicks(50, 1) != hostile_clicks(50, 2)
    assert max(map(len, hostile_clicks(500, 3))) <= LARGEST_BYTES
    assert sum(str(NOW_MS).encode() in record for record in hostile_clicks(50, 1, NOW_MS)) > 10
    assert any(b"unfit_row" in record for record in JSON_CORPUS)
