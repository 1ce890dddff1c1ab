import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka.consumer.fetcher import ConsumerRecord

from jobs.common.settings import load_settings
from tests.support.bundles import make_bundle
from tools.paths import CONF
from tools.trials.verdict import Clicks, differences, in_order_of_arrival, newest_profiles
from udfs.measurement.labels import CONVERTED
from udfs.models.bundle import load_bundle

NOW = 1_767_225_600_000


@given(st.dictionaries(st.integers(0, 20), st.sampled_from([0.25, 0.5])), st.data())
def test_any_change_of_what_was_expected_is_a_difference(expected, data):
    found = list(expected.items())
    assert differences("scores", expected, data.draw(st.permutations(found))) == []
    if found:
        key, value = data.draw(st.sampled_from(found))
        others = [entry for entry in found if entry[0] != key]
        assert differences("scores", expected, others) == [f"scores: 1 of {len(found)} missing, such as {key}"]
        assert differences("scores", expected, [*found, (key, value)]) == [
            f"scores: 1 there more than once, such as {key}"
        ]
        assert differences("scores", expected, [*others, (key, 0.75)]) == [
            f"scores: 1 with another value, such as {key}"
        ]
    assert differences("scores", expected, [*found, (21, 0.5)]) == ["scores: 1 that should not be there, such as 21"]


def record(offset: int, **click) -> ConsumerRecord:
    value = msgspec.json.encode({"user_id": "ada", "event_name": "page_view", "event_time": NOW, **click})
    fields = {"topic": "clicks", "partition": 1, "offset": offset, "timestamp": NOW, "value": value}
    return ConsumerRecord(**{name: fields.get(name) for name in ConsumerRecord._fields})


@pytest.mark.slow
def test_an_offline_run_says_what_each_click_should_give(tmp_path):
    records = [
        record(4, event_id="a"),
        record(5, event_id="a"),  # sent again: no score
        record(6, event_time="yesterday"),
        record(7, event_name="purchase", value=12.5, event_time=NOW + 60_000),
        record(8, event_time=NOW + 500_000),
    ]
    bundle = load_bundle(make_bundle(tmp_path, "v1"), 64)
    clicks = Clicks(records, newest_profiles(simulated_profiles()), load_settings(CONF), bundle)

    assert clicks.dead_letters == {(1, 6): "wrong_type"}
    assert clicks.scores().keys() == {(1, 4), (1, 7), (1, 8)}
    assert clicks.labels(CONVERTED, NOW + 400_000) == {(1, 4): True, (1, 7): False}
    (session,) = clicks.sessions(NOW + 1).items()
    assert session[0] == ("ada", NOW)
    assert session[1][:3] == ("champion", NOW + 500_000, 3)
    assert clicks.sessions(NOW) == {}


class simulated_profiles:
    profiles = [{"user_id": "ada", "country": "CH", "updated_at": NOW + 1}, {"user_id": "ada", "country": "AT"}]


def test_the_newest_profile_of_a_user_counts_from_the_beginning():
    (profile,) = newest_profiles(simulated_profiles())
    assert msgspec.json.decode(profile) == {"user_id": "ada", "country": "AT", "updated_at": 0}


def at(partition: int, offset: int) -> ConsumerRecord:
    return record(offset)._replace(partition=partition)


def test_records_from_before_an_addition_of_partitions_come_before_all_later_ones():
    records = [at(0, 0), at(0, 1), at(0, 2), at(1, 0), at(1, 1), at(2, 0)]
    additions = [{0: 1, 1: 1}, {0: 2, 1: 1, 2: 1}]
    ordered = [(each.partition, each.offset) for each in in_order_of_arrival(records, additions)]
    assert ordered == [(0, 0), (1, 0), (0, 1), (2, 0), (0, 2), (1, 1)]
    assert in_order_of_arrival(reversed(records), []) == records
