"""What recorded events see of other users, against counting one by one; and what no event may see."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.examples import examples
from tests.support.population_events import LAYOUT, MINUTE, Did, arrivals_of, events, expected, records_of
from tests.unit.training.data.test_preparation import archive, by_time
from training.data.examples import Examples, load_examples
from training.data.population import fill_events
from training.data.preparation import Preparation, prepare
from training.simulation.clickstream import Simulation, simulate
from training.simulation.examples import simulated_examples
from udfs.features.declaration_file import population
from udfs.measurement.labels import CONVERTED
from udfs.population.tables import fold_of

NOW, HOUR = 1_700_000_000_000, 60 * MINUTE
ALL = [column.stored_name for column in LAYOUT.population_columns]


def filled(done: list[Did]) -> np.ndarray:
    users, user = np.unique([one.user for one in done], return_inverse=True)
    records = fill_events(records_of(done), user.astype(np.int64), users.tolist(), arrivals_of(done), LAYOUT)
    return np.stack([records[name] for name in ALL], 1)


@examples(25)
@given(events)
def test_recorded_events_see_what_others_had_done_before(done):
    np.testing.assert_allclose(filled(done), expected(done), rtol=1e-5, atol=1e-5)


@examples(25)
@given(events, st.data())
def test_neither_own_events_nor_those_since_the_table_change_what_an_event_sees(done, data):
    """Whatever the user does at any time, and whatever anybody does in the hour of the event or later."""
    somebody = Did("zoe", 0, 0, "scroll")  # so that there are tables with or without the user's own events
    row = data.draw(st.integers(0, len(done) - 1))
    mine = done[row]
    drawn = data.draw(events)
    changed = [one._replace(user=mine.user) for one in drawn] + [
        one._replace(minute=one.minute + (mine.minute - 2) // 10 * 10) for one in drawn
    ]
    before, after = (filled([somebody, *done, *more])[1 + row] for more in ([], changed))
    np.testing.assert_allclose(before, after, rtol=1e-6)  # the last bits depend on the tables in between


def test_a_category_of_ones_own_tells_nothing():
    """Counts with a user's own events would tell who bought: labels that nothing predicts stay unpredictable."""
    done = [
        Did(f"u{user}", 10 * minute, user + 1, "purchase" if minute == 3 and user % 2 else "view_item")
        for user in range(40)
        for minute in range(9)
    ]
    seen = filled(done)[:, :2]
    assert set(seen[~np.isnan(seen)].tolist()) == {0.0}


QUICK = Preparation(CONVERTED, population(), workers=1, bucket_events=300)


@pytest.fixture(scope="module")
def stream():
    return simulate(Simulation(users=50, hours=5, seed=8, late_share=0.1))


def own(examples: Examples) -> Examples:
    """The examples with the features of the population alone."""
    columns = [examples.names.index(feature.name) for feature in population().features if feature.group == "population"]
    return replace(examples, features=examples.features[:, columns])


def test_buckets_of_an_archive_see_all_users(tmp_path, stream):
    archive(tmp_path / "clicks" / "part-0.parquet", list(stream.clicks()), stream.arrival_ms)
    directories, _ = prepare(tmp_path / "clicks", tmp_path / "out", QUICK)
    assert len(directories) > 1
    features, _ = by_time(own(load_examples(directories)))
    wanted, _ = by_time(own(simulated_examples(stream, declaration=population())))
    np.testing.assert_array_equal(features, wanted)
    assert np.isfinite(features).any(0).all()
    assert np.isnan(features[:, :-1]).all(1).any()  # before the first table; the user's lift is 1 then


def test_a_record_that_was_read_twice_counts_once(tmp_path, stream):
    for name in ("a", "b"):
        archive(tmp_path / name / "part-0.parquet", list(stream.clicks()), stream.arrival_ms)
    archive(tmp_path / "b" / "part-1.parquet", list(stream.clicks()), stream.arrival_ms)
    once, twice = (load_examples(prepare(tmp_path / name, tmp_path / f"of-{name}", QUICK)[0]) for name in ("a", "b"))
    np.testing.assert_array_equal(by_time(own(once))[0], by_time(own(twice))[0])


def test_the_rows_of_a_file_in_any_order_see_the_same(tmp_path, stream):
    clicks = list(stream.clicks())
    seen = []
    for number, rows in enumerate((clicks, clicks[::-1], sorted(clicks, key=lambda click: click["event_name"]))):
        path = tmp_path / f"{number}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        seen.append(by_time(own(load_examples(prepare(path, tmp_path / str(number), QUICK)[0])))[0])
    for others in seen[1:]:
        np.testing.assert_array_equal(seen[0], others)


def test_what_a_visitor_saw_before_the_login_is_what_was_known_then(tmp_path):
    """The events of the visitor keep what they were scored with, and each fold is that of the event's own user."""
    bob = next(name for name in map(str, range(999)) if fold_of(name) not in (fold_of("ada"), fold_of("device")))
    assert fold_of("ada") != fold_of("device")
    hours = {0: bob, 1: bob, 3: "device", 4: bob, 5: "ada", 7: "ada"}
    clicks = [
        {"user_id": user, "anonymous_id": bob if user == bob else "device", "event_name": "scroll", "event_time": NOW}
        for user in hours.values()
    ]
    arrival_ms = NOW // HOUR * HOUR + 6 * MINUTE + HOUR * np.array(list(hours))
    archive(tmp_path / "clicks" / "part-0.parquet", clicks, arrival_ms, partitions=1)
    followed = replace(QUICK, follow_logins=True, bots=None, keep_immature=True)
    examples = load_examples(prepare(tmp_path / "clicks", tmp_path / "out", followed)[0])
    seen = {
        offset: examples.events["own_all_events"][start:end].round(1).tolist()
        for offset, start, end in zip(examples.offset.tolist(), examples.starts, examples.ends)
    }
    assert np.isnan(seen[0]).all()
    # The device's event does not count for itself, but for ada: at hour 5 there were three of bob and one of it.
    assert seen[2] == [2]
    assert seen[4] == [2, 4]
    assert seen[5] == [2, 4, 4]
