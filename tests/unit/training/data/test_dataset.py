import json
from collections import Counter, defaultdict

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.examples import examples
from training.data.dataset import (
    NO_UPDATES,
    ProfileUpdates,
    arrange,
    read_clicks,
    read_profile_batch,
    read_profiles,
)
from training.simulation.clickstream import Simulation, simulate
from training.simulation.malformed import with_broken
from udfs.config.durations import now_ms
from udfs.contracts.clicks import ClickLimits
from udfs.contracts.packed_events import EVENT, read_histories
from udfs.contracts.profiles import NO_PROFILE, PROFILE
from udfs.contracts.rejects import Reason
from udfs.features.computer import FeatureComputer
from udfs.mapping.topic import ClickTopic

HISTORY_LENGTH = 4
START_MS = 1_577_836_800_000  # from which the times below count


def encode(record: dict) -> bytes:
    return json.dumps(record).encode()


def click(user: int, time_ms: int, name: str = "view_item", item: str = "i1") -> dict:
    return {"user_id": f"u{user}", "event_name": name, "event_time": START_MS + time_ms, "item_id": item, "price": 2.5}


def profile(user: int, updated_ms: int, country: str) -> dict:
    return {"user_id": f"u{user}", "updated_at": START_MS + updated_ms, "country": country}


clicks = st.builds(
    click,
    user=st.integers(0, 2),
    time_ms=st.integers(0, 50),
    name=st.sampled_from(["view_item", "add_to_cart", "purchase"]),
    item=st.sampled_from(["i1", "i2"]),
)
profiles = st.builds(
    profile, user=st.integers(0, 3), updated_ms=st.integers(0, 60), country=st.sampled_from(["DE", "FR", "JP"])
)


@pytest.fixture(scope="module")
def computer():
    return FeatureComputer(history_length=HISTORY_LENGTH)


def features(computer, clicks: list[dict], profiles: list[dict] = ()) -> np.ndarray:
    """The feature matrix in the order of the clicks."""
    data = arrange(read_clicks(map(encode, clicks)), read_profiles(map(encode, profiles)), HISTORY_LENGTH)
    matrix = np.empty((len(clicks), len(computer.names)), np.float32)
    matrix[data.positions] = data.features(computer)
    return matrix


def streamed_features(computer, clicks: list[dict], profiles: list[dict]) -> np.ndarray:
    """The same, one click at a time, with what the job keeps of each user."""
    history, count, first_seen_ms = defaultdict(bytes), defaultdict(int), {}
    rows = []
    for record in clicks:
        user, time_ms = record["user_id"], record["event_time"]
        packed = read_clicks([encode(record)]).records.tobytes()
        history[user] = (history[user] + packed)[-HISTORY_LENGTH * EVENT.itemsize :]
        count[user] += 1
        first_seen_ms[user] = min(first_seen_ms.get(user, time_ms), time_ms)
        known = [update for update in profiles if update["user_id"] == user and update["updated_at"] <= time_ms]
        newest = sorted(known, key=lambda update: update["updated_at"])[-1:]
        rows.append(
            computer.compute(
                *read_histories([history[user]]),
                np.array([count[user]]),
                np.array([first_seen_ms[user]]),
                read_profiles(map(encode, newest)).profiles if newest else np.frombuffer(NO_PROFILE, PROFILE),
            )
        )
    return np.concatenate(rows)


@examples(60)
@given(
    st.lists(clicks, min_size=1, max_size=20),
    st.lists(profiles, max_size=6, unique_by=lambda update: (update["user_id"], update["updated_at"])),
)
def test_features_are_bit_for_bit_those_of_a_stream(computer, clicks, profiles):
    assert features(computer, clicks, profiles).tobytes() == streamed_features(computer, clicks, profiles).tobytes()


@examples(60)
@given(
    st.lists(clicks, min_size=1, max_size=12),
    st.lists(clicks, max_size=12),
    st.lists(clicks, max_size=12),
    st.lists(profiles, max_size=5),
    st.lists(profiles, max_size=5),
)
def test_what_comes_later_changes_no_bit_of_earlier_rows(computer, past, future, other, profiles, later_profiles):
    now_ms = max(record["event_time"] for record in past)
    later_profiles = [
        update | {"updated_at": now_ms + 1 + update["updated_at"] - START_MS} for update in later_profiles
    ]
    one = features(computer, past + future, profiles)[: len(past)]
    two = features(computer, past + other, profiles + later_profiles)[: len(past)]
    assert one.tobytes() == two.tobytes()


def test_the_simulated_shop_is_laid_out_by_user_in_order_of_arrival():
    stream = simulate(Simulation(users=60, seed=1, late_share=0.2))
    clicks = read_clicks(map(msgspec.json.encode, stream.clicks()), stream.arrival_ms)
    data = arrange(clicks, read_profiles(map(msgspec.json.encode, stream.profiles)))
    assert [data.user_ids[code] for code in data.user] == [f"u{user}" for user in stream.events["user"][data.positions]]
    same_user = data.user[1:] == data.user[:-1]
    assert (data.positions[1:] > data.positions[:-1])[same_user].all()
    assert np.array_equal(data.records["time_ms"], stream.events["time_ms"][data.positions])


def test_the_events_of_a_row_are_those_of_its_user_up_to_it():
    data = arrange(read_clicks([encode(click(user, 0)) for user in (1, 2, 1, 1, 2, 1)]), NO_UPDATES, history_length=3)
    assert data.starts.tolist() == [0, 0, 0, 0, 4, 4]
    assert data.ends.tolist() == [1, 2, 3, 4, 5, 6]
    assert data.lifetime_events.tolist() == [1, 2, 3, 4, 1, 2]


def test_first_seen_is_the_earliest_event_time_so_far_though_it_came_late():
    data = arrange(read_clicks([encode(click(1, time_ms)) for time_ms in (30, 10, 20)]))
    assert (data.first_seen_ms - START_MS).tolist() == [30, 10, 10]


def test_arrival_times_decide_which_profile_a_click_sees():
    clicks = [encode(click(1, 10)), encode(click(1, 20))]
    updates = read_profiles([encode(profile(1, 15, "DE"))])
    assert arrange(read_clicks(clicks), updates).profiles["known"].tolist() == [0, 1]
    assert arrange(read_clicks(clicks, START_MS + np.array([15, 25])), updates).profiles["known"].tolist() == [1, 1]


def test_without_arrival_times_a_clock_that_is_ahead_lets_no_other_event_see_a_profile_of_the_future():
    clicks = [encode(click(user, time_ms)) for user, time_ms in ((2, 1_000), (1, 10), (1, 20))]
    updates = read_profiles([encode(profile(1, 15, "DE"))])
    assert arrange(read_clicks(clicks), updates).profiles["known"].tolist() == [0, 0, 1]


def test_a_profile_without_a_time_always_holds():
    updates = read_profiles([b'{"user_id": "u1", "country": "DE"}'])
    assert arrange(read_clicks([encode(click(1, 5))]), updates).profiles["known"].tolist() == [1]


def test_of_two_updates_at_the_same_time_the_later_record_counts():
    updates = read_profiles([encode(profile(1, 5, "DE")), encode(profile(1, 5, "FR"))])
    seen = arrange(read_clicks([encode(click(1, 5))]), updates).profiles
    assert seen[0] == updates.profiles[1]


def test_rejected_clicks_are_counted_by_reason_and_leave_no_row():
    mixed = list(with_broken(simulate(Simulation(users=20)).clicks(), share=0.3))
    read = read_clicks(payload for payload, _ in mixed)
    # In a file there is no Kafka timestamp that a time could be too far from.
    kept = (None, Reason.TIME_TOO_OLD, Reason.TIME_IN_FUTURE)
    assert read.positions.tolist() == [position for position, (_, reason) in enumerate(mixed) if reason in kept]
    assert read.rejected == Counter(reason.value for _, reason in mixed if reason not in kept)


def test_with_arrival_times_the_jobs_bounds_on_event_times_hold():
    payloads = [encode(click(1, time_ms)) for time_ms in (1_000, 5_000, 1_000)]
    limits = ClickLimits(max_behind_ms=3_000, max_ahead_ms=3_000)
    read = read_clicks(payloads, START_MS + np.array([1_000, 1_000, 5_000]), ClickTopic(limits))
    assert read.positions.tolist() == [0]
    assert read.rejected == {Reason.TIME_IN_FUTURE: 1, Reason.TIME_TOO_OLD: 1}


def test_rejected_profiles_are_counted_by_reason():
    read = read_profiles([b"{", b'{"user_id": "u1", "updated_at": "now"}', b'{"user_id": "u1"}'])
    assert dict(read.rejected) == {"invalid_json": 1, "wrong_type": 1}
    assert read.user_ids == ["u1"]


def updated(given) -> ProfileUpdates:
    return read_profiles([encode({"user_id": "u1", "country": "DE", "updated_at": given})])


NOW_MS = 1_772_355_600_000


@pytest.mark.parametrize(
    ("given", "ms"),
    [
        (NOW_MS, NOW_MS),
        (float(NOW_MS), NOW_MS),
        (str(NOW_MS), NOW_MS),
        ("2026-03-01T09:00:00Z", NOW_MS),
        ("2026-03-01T10:00:00.000+01:00", NOW_MS),
        (None, 0),
        (0, 0),
    ],
)
def test_the_time_of_a_profile_is_read_as_the_time_of_a_click(given, ms):
    assert updated(given).updated_ms.tolist() == [ms]


@pytest.mark.parametrize(
    ("given", "reason", "message"),
    [
        (
            NOW_MS // 1000,
            Reason.OUT_OF_RANGE,
            "updated_at 1772355600 is 1970-01-21 in ms; it looks like seconds (2026-03-01): send milliseconds",
        ),
        (
            NOW_MS * 1000,
            Reason.OUT_OF_RANGE,
            "updated_at 1772355600000000 is in the year 58133; it looks like microseconds (2026-03-01): "
            "send milliseconds",
        ),
        (NOW_MS * 1_000_000, Reason.OUT_OF_RANGE, "it looks like nanoseconds (2026-03-01): send milliseconds"),
        (-1, Reason.OUT_OF_RANGE, "updated_at -1: expected a time from 2000-01-01 to 2100-01-01"),
        ("2026-03-01T09:00:00", Reason.WRONG_TYPE, 'got "2026-03-01T09:00:00" - at `$.updated_at`'),
        ("yesterday", Reason.WRONG_TYPE, 'got "yesterday" - at `$.updated_at`'),
        (True, Reason.WRONG_TYPE, "got true - at `$.updated_at`"),
        (float("nan"), Reason.NOT_FINITE, "NaN is not a finite number - at `$.updated_at`"),
    ],
)
def test_a_time_in_another_unit_rejects_the_profile_with_the_unit_that_fits(given, reason, message):
    read = updated(given)
    assert (read.user_ids, dict(read.rejected), len(read.examples)) == ([], {reason: 1}, 1)
    assert message in read.examples[0]


def test_a_profile_of_the_future_is_rejected():
    soon, late = now_ms() + 3_600_000, now_ms() + 25 * 3_600_000
    assert updated(soon).updated_ms.tolist() == [soon]
    read = updated(late)
    assert read.rejected == {Reason.TIME_IN_FUTURE: 1}
    expected = "expected the time of a change that has happened"
    assert read.examples == [f"updated_at {late} is more than a day after now: {expected}"]


def test_with_arrival_times_nobody_reads_when_a_profile_was_updated():
    read = read_profile_batch([None], [b'{"user_id": "u1", "updated_at": "soon"}'], np.array([7]))
    assert read.updated_ms.tolist() == [7]


def test_the_first_messages_and_the_fields_that_cannot_be_read_are_kept():
    bad = [b'{"user_id": ""}', *(encode({"user_id": "u1", "updated_at": at}) for at in ("a", "b", "c", "d", "e"))]
    odd = [encode({"user_id": "u1", "country": country}) for country in ("", "(not set)", "DE")]
    read = read_profiles([*bad, *odd])
    assert read.rejected == {Reason.EMPTY_FIELD: 1, Reason.WRONG_TYPE: 5}
    assert len(read.examples) == 5
    assert "$.user_id" in read.examples[0]
    assert [message.split('"')[1] for message in read.examples[1:]] == ["a", "b", "c", "d"]
    assert read.unread == {"country": 2}
    assert len(read.user_ids) == 3


def test_no_clicks_make_an_empty_dataset(computer):
    data = arrange(read_clicks([]))
    assert data.features(computer).shape == (0, len(computer.names))
