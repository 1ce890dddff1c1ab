import sys

import msgspec
import numpy as np
import pytest

from tests.support.own_functions import price_spread
from tests.unit.udfs.features.test_features import random_batch
from udfs.contracts.packed_events import EVENT
from udfs.features import own_functions
from udfs.features.computer import FeatureComputer
from udfs.features.declaration_file import DeclarationError, FeatureFile, declaration_of, from_json, to_json
from udfs.features.schema import schema_hash

SPREAD = "tests.support.own_functions.price_spread"


def declared(path: str, **more):
    entry = {"python": path, "unit": "currency", "doc": "spread"} | more
    return declaration_of(msgspec.convert({"features": {"own": {"spread": entry}}}, FeatureFile))


def test_a_compiled_function_gives_what_python_gives():
    arguments = random_batch(rows=200, history_length=20, seed=1)
    matrix = FeatureComputer(history_length=20, declaration=declared(SPREAD)).compute(**arguments)
    rows = zip(*(arguments[name] for name in ("starts", "ends")))
    for (start, end), value in zip(rows, matrix[:, 0]):
        events = arguments["records"][max(start, end - 20) : end].view(np.recarray)
        seen = np.flatnonzero(events["time_ms"] <= events["time_ms"][-1])
        expected = np.float32(price_spread(events, seen, 0, 0, None))
        assert value.tobytes() == expected.tobytes()


def test_a_function_sees_events_by_time_and_the_scored_one_last(tmp_path, monkeypatch):
    (tmp_path / "shop_a.py").write_text(
        "def newest(events, seen, lifetime_events, first_seen_ms, profile):\n"
        "    return events[seen[-1]].scroll * 1000 + events[seen[0]].scroll * 10 + lifetime_events + profile.known\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    records = np.zeros(3, EVENT)
    records["time_ms"], records["scroll"] = [2_000, 1_000, 3_000], [5, 6, 7]
    batch = random_batch(rows=1, history_length=3, seed=1)
    batch |= {"records": records, "starts": np.array([0]), "ends": np.array([3]), "lifetime_events": np.array([4])}
    value = FeatureComputer(declaration=declared("shop_a.newest")).compute(**batch)[0, 0]
    assert value == 7_000 + 60 + 4 + int(batch["profiles"]["known"][0])


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nowhere.at.all", "can't import nowhere.at (ModuleNotFoundError: No module named 'nowhere')"),
        ("tests.support.own_functions.none", "module tests.support.own_functions has no function none"),
        ("tests.support.own_functions.too_few", "takes 2 arguments; expected 5: events, seen, lifetime_events"),
        ("tests.support.own_functions_with_imports.one", "its module imports tests: it may import __future__, math"),
        ("math.floor", "module math has no function floor"),
        ("os.sep", "module os has no function sep"),
    ],
)
def test_a_function_that_can_not_be_used_is_refused_by_key_and_reason(path, message):
    with pytest.raises(DeclarationError) as caught:
        declared(path)
    assert str(caught.value).startswith(f"key features.own.spread.python: {path}: {message}")


def test_a_function_and_an_expression_together_are_refused():
    with pytest.raises(DeclarationError, match="expected one of value and python, got both"):
        declared(SPREAD, value="now.value")


def test_a_bundle_remembers_the_source_and_a_changed_one_is_refused(tmp_path, monkeypatch):
    module = tmp_path / "shop_b.py"
    source = "def one(events, seen, lifetime_events, first_seen_ms, profile):\n    return {}\n"
    module.write_text(source.format(1))
    monkeypatch.syspath_prepend(tmp_path)
    trained = declared("shop_b.one")
    kept = from_json(to_json(trained), "features.json")
    assert schema_hash(kept, kept.names, 64) == schema_hash(trained, trained.names, 64)
    module.write_text(source.format(2))
    own_functions._digest.cache_clear()  # as another process
    with pytest.raises(ValueError, match=r"shop_b\.one: the source of its module is not that of the training"):
        FeatureComputer(declaration=kept)
    sys.modules.pop("shop_b")


def test_a_module_that_fails_is_refused_with_its_error(tmp_path, monkeypatch):
    (tmp_path / "shop_c.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(DeclarationError, match="ZeroDivisionError: division by zero"):
        declared("shop_c.one")
