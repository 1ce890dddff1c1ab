import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.examples import examples
from tests.support.oracles.features import ORACLE, read_case
from udfs.contracts.packed_events import EVENT, EVENT_KINDS, PAGE_TYPES, read_histories
from udfs.contracts.profiles import NO_DAY, NO_PROFILE, PROFILE
from udfs.features.computer import FeatureComputer
from udfs.features.declaration import Declaration
from udfs.features.declaration_file import STANDARD
from udfs.features.schema import schema_hash

SECOND, MINUTE, HOUR, DAY = 1_000, 60_000, 3_600_000, 86_400_000
NOON = 1_700_049_600_000  # Wednesday 2023-11-15 12:00 UTC
ROW_ARGUMENTS = ("starts", "ends", "lifetime_events", "first_seen_ms", "profiles")


def event(at: int, kind_name: str = "page_view", **fields) -> tuple:
    """One EVENT record, `at` milliseconds after noon."""
    record = np.zeros((), EVENT)
    record["time_ms"], record["kind"], record["value"] = NOON + at, EVENT_KINDS.index(kind_name), np.nan
    for name, value in fields.items():
        record[name] = value
    return record.item()


def batch(*histories: list[tuple], lifetime_events=None, first_seen_ms=None, profiles=None) -> dict[str, np.ndarray]:
    """Arguments of compute(): a row for each history, given in order of arrival."""
    lengths = np.array([len(history) for history in histories])
    ends = np.cumsum(lengths)
    records = np.array([record for history in histories for record in history], EVENT)
    first_times = records["time_ms"][ends - lengths]
    return {
        "records": records,
        "starts": ends - lengths,
        "ends": ends,
        "lifetime_events": np.array(lengths if lifetime_events is None else lifetime_events, np.int64),
        "first_seen_ms": np.array(first_times if first_seen_ms is None else first_seen_ms, np.int64),
        "profiles": np.frombuffer(NO_PROFILE * len(histories), PROFILE) if profiles is None else profiles,
    }


def compute_one(name: str, *history: tuple, history_length: int = 64, **others) -> float:
    return float(FeatureComputer([name], history_length).compute(**batch(list(history), **others))[0, 0])


def compute_by_oracle(arguments: dict[str, np.ndarray], history_length: int) -> np.ndarray:
    rows = zip(*(arguments[name] for name in ROW_ARGUMENTS))
    cases = [read_case(arguments["records"], start, end, history_length, *others) for start, end, *others in rows]
    return np.array([[ORACLE[name](case) for name in STANDARD.names] for case in cases], np.float64).astype(np.float32)


def assert_same_bits(matrix: np.ndarray, expected: np.ndarray, names=STANDARD.names) -> None:
    assert matrix.dtype == expected.dtype == np.float32
    assert matrix.shape == expected.shape
    for row, column in np.argwhere(matrix.view(np.uint32) != expected.view(np.uint32)):
        pytest.fail(f"{names[column]} of row {row} is {matrix[row, column]!r}, not {expected[row, column]!r}")


def random_batch(rows: int, history_length: int, seed: int) -> dict[str, np.ndarray]:
    """Users with busy and long pauses, records out of order and ahead of time, slices overlapping as in training."""
    random = np.random.default_rng(seed)
    count = rows + history_length
    records = np.zeros(count, EVENT)
    gaps = random.choice([0, 700, 15_000, 61_000, 1_900_000, 30_000_000], count, p=[0.1, 0.3, 0.4, 0.15, 0.04, 0.01])
    disorder = random.choice([0, -5_000, -400_000, 90_000], count, p=[0.85, 0.08, 0.05, 0.02])
    records["time_ms"] = NOON + np.cumsum(gaps) + disorder
    identifiers = random.integers(0, 2**32, 40, dtype=np.uint32)
    identifiers[:3] = 0
    for name in ("item", "category", "page"):
        records[name] = random.choice(identifiers, count)
    records["value"] = np.where(random.random(count) < 0.3, np.nan, random.lognormal(3, 2, count))
    records["engagement_ds"] = random.integers(0, 65_536, count)
    records["kind"] = random.integers(0, len(EVENT_KINDS) + 1, count)
    records["page_type"] = random.integers(0, len(PAGE_TYPES) + 1, count)
    records["scroll"] = random.integers(0, 101, count)
    records["utc_offset_quarters"] = random.integers(-48, 57, count)
    records["device"] = random.integers(0, 6, count)
    ends = np.arange(1, rows + 1) + random.integers(0, history_length, rows)
    starts = np.maximum(ends - random.integers(1, history_length + 1, rows), 0)
    profiles = np.zeros(rows, PROFILE)
    profiles["signup_day"] = random.choice([NO_DAY, 0, 19_000, 20_500], rows)
    profiles["country"] = random.integers(0, 677, rows)
    profiles["age_band"] = random.integers(0, 9, rows)
    profiles["membership_tier"] = random.integers(0, 7, rows)
    profiles["marketing_consent"] = random.integers(-1, 2, rows)
    profiles["known"] = random.integers(0, 2, rows)
    return {
        "records": records,
        "starts": starts,
        "ends": ends,
        "lifetime_events": ends - starts + random.choice([0, 0, 3, 10_000], rows),
        "first_seen_ms": NOON + random.integers(-100 * DAY, DAY, rows),
        "profiles": profiles,
    }


EDGES = [0, 1, MINUTE, 5 * MINUTE, 30 * MINUTE, DAY]
steps = st.one_of(
    st.sampled_from([edge + shift for edge in EDGES for shift in (-1, 0, 1)]),
    st.integers(-10 * MINUTE, 3 * DAY),
    st.integers(0, 1_000),
)
values = st.one_of(st.just(np.nan), st.sampled_from([0.0, -0.0, 1e-40, 0.1, 5.0, 1e15]), st.floats(0, 1e9, width=32))
small_codes = st.sampled_from([0, 1, 2, 3])
kinds = st.one_of(st.sampled_from([EVENT_KINDS.index(k) for k in ("view_item", "add_to_cart")]), st.integers(0, 19))


@st.composite
def histories(draw) -> list[tuple]:
    time, history = draw(st.integers(0, 3_000_000_000_000)), []
    for step in draw(st.lists(steps, min_size=1, max_size=24)):
        time += step
        identifiers = [draw(small_codes) for _ in range(3)]
        counts = [draw(values), draw(st.sampled_from([0, 7, 65_535])), draw(kinds), draw(st.integers(0, 11))]
        rest = [draw(st.integers(0, 100)), draw(st.integers(-48, 56)), draw(st.integers(0, 6)), 0, 0]
        history.append((time, *identifiers, *counts, *rest))
    return history


@st.composite
def batches(draw) -> dict[str, np.ndarray]:
    rows = draw(st.lists(histories(), min_size=1, max_size=3))
    profile = st.tuples(
        st.sampled_from([NO_DAY, -1, 0, 19_000, 40_000]),
        st.integers(0, 676),
        st.integers(0, 9),
        st.integers(0, 7),
        st.integers(-1, 1),
        st.integers(0, 1),
        st.just((0,) * 6),
    )
    return batch(
        *rows,
        lifetime_events=[len(history) + draw(st.sampled_from([0, 1, 2**40])) for history in rows],
        first_seen_ms=[draw(st.sampled_from(history))[0] + draw(steps) for history in rows],
        profiles=np.array([draw(profile) for _ in rows], PROFILE),
    )


def test_every_feature_has_an_oracle_and_every_oracle_a_feature():
    assert set(ORACLE) == set(STANDARD.names)


def test_models_that_were_trained_before_events_had_ids_are_still_read():
    known = "91358bc3bc7651078e4011ebda039d089d28ec0eaa30d6a841b7478785e34f4d"
    added = ("since_item_seen_s", "since_category_seen_s")
    assert schema_hash(STANDARD, [name for name in STANDARD.names if name not in added], 64) == known


def test_feature_names_are_unique():
    assert len(set(STANDARD.names)) == len(STANDARD.names)


def test_every_feature_is_described_with_group_and_unit():
    assert [
        feature for feature in STANDARD.features if not (feature.group and feature.unit and feature.description)
    ] == []


def test_every_column_is_computed():
    matrix = FeatureComputer().compute(**random_batch(rows=200, history_length=64, seed=1))
    assert [name for name, column in zip(STANDARD.names, matrix.T) if np.isinf(column).any()] == []


def test_every_feature_takes_more_than_one_value():
    matrix = FeatureComputer().compute(**random_batch(rows=3_000, history_length=64, seed=2))
    assert [name for name, column in zip(STANDARD.names, matrix.T) if len(np.unique(column)) < 2] == []


@examples(200)
@given(arguments=batches(), history_length=st.integers(1, 30))
def test_the_kernel_gives_the_bits_of_the_oracle(arguments, history_length):
    matrix = FeatureComputer(history_length=history_length).compute(**arguments)
    assert not np.isinf(matrix).any()
    assert_same_bits(matrix, compute_by_oracle(arguments, history_length))


@pytest.mark.parametrize("history_length", [1, 2, 64, 500])
def test_the_kernel_gives_the_bits_of_the_oracle_on_long_histories(history_length):
    arguments = random_batch(rows=60, history_length=500, seed=history_length)
    matrix = FeatureComputer(history_length=history_length).compute(**arguments)
    assert_same_bits(matrix, compute_by_oracle(arguments, history_length))


@pytest.mark.parametrize("name", STANDARD.names)
def test_a_feature_computed_alone_has_the_bits_it_has_among_all(name):
    arguments = random_batch(rows=300, history_length=64, seed=3)
    alone = FeatureComputer([name]).compute(**arguments)
    among_all = FeatureComputer().compute(**arguments)[:, [STANDARD.names.index(name)]]
    assert_same_bits(alone, among_all, [name])


@given(names=st.lists(st.sampled_from(STANDARD.names), unique=True))
@examples(50)
def test_any_selection_in_any_order_has_the_bits_of_the_full_matrix(names):
    arguments = random_batch(rows=50, history_length=64, seed=4)
    columns = [STANDARD.names.index(name) for name in names]
    expected = np.ascontiguousarray(FeatureComputer().compute(**arguments)[:, columns])
    assert_same_bits(FeatureComputer(names).compute(**arguments), expected, names)


@given(cuts=st.lists(st.integers(0, 120), max_size=5))
@examples(50)
def test_a_batch_cut_anywhere_gives_the_same_bits(cuts):
    arguments = random_batch(rows=120, history_length=64, seed=6)
    computer = FeatureComputer()
    parts = []
    bounds = [0, *sorted(cuts), 120]
    for low, high in zip(bounds, bounds[1:]):
        rows = {name: arguments[name][low:high] for name in ROW_ARGUMENTS}
        parts.append(computer.compute(arguments["records"], **rows))
    assert_same_bits(np.concatenate(parts), computer.compute(**arguments))


def test_packed_histories_are_read_as_they_come_from_state():
    arguments = random_batch(rows=10, history_length=64, seed=7)
    packed = [arguments["records"][start:end].tobytes() for start, end in zip(arguments["starts"], arguments["ends"])]
    records, starts, ends = read_histories(packed)
    assert not records.flags.writeable
    from_state = FeatureComputer().compute(**{**arguments, "records": records, "starts": starts, "ends": ends})
    assert_same_bits(from_state, FeatureComputer().compute(**arguments))


def test_arrays_that_are_not_contiguous_are_accepted():
    arguments = random_batch(rows=10, history_length=64, seed=8)
    every_second = {name: np.repeat(array, 2)[::2] for name, array in arguments.items()}
    assert_same_bits(FeatureComputer().compute(**every_second), FeatureComputer().compute(**arguments))


def test_an_empty_batch_has_no_rows():
    none = {name: array[:0] for name, array in random_batch(rows=1, history_length=1, seed=9).items()}
    assert FeatureComputer(["events_5m", "value"]).compute(**none).shape == (0, 2)


def test_identifiers_that_share_their_low_bits_are_told_apart():
    history = [event(i, item=(i + 1) << 20, category=1 << (i % 32)) for i in range(64)]
    assert compute_one("distinct_items_1m", *history) == 64
    assert compute_one("distinct_categories_1m", *history) == 32


def test_a_missing_identifier_is_no_item():
    assert compute_one("distinct_items_5m", event(0, item=0), event(1, item=9), event(2, item=0)) == 1


@pytest.mark.parametrize(("label", "length"), [("1m", MINUTE), ("5m", 5 * MINUTE), ("30m", 30 * MINUTE), ("24h", DAY)])
def test_a_window_includes_this_event_and_excludes_its_far_edge(label, length):
    assert compute_one(f"events_{label}", event(-length), event(-length + 1), event(0)) == 2


def test_a_pause_of_exactly_the_gap_stays_in_the_session():
    assert compute_one("session_events", event(-30 * MINUTE), event(0)) == 2


def test_a_longer_pause_starts_a_session():
    visits = event(-31 * MINUTE), event(-30 * MINUTE - 1), event(0)
    assert compute_one("session_events", *visits) == 1
    assert compute_one("since_last_visit_s", *visits) == np.float32(1800.001)


def test_a_record_stamped_later_than_this_event_is_ignored():
    history = event(-5 * SECOND, "purchase"), event(3 * SECOND, "purchase"), event(0)
    assert compute_one("since_purchase_s", *history) == 5
    assert compute_one("events_1m", *history) == 2
    assert compute_one("history_events", *history) == 3


def test_a_record_that_arrived_late_counts_where_its_time_belongs():
    late = (
        event(0 - HOUR),
        event(-2 * MINUTE),
        event(-40 * MINUTE, "search"),
        event(-20 * MINUTE, "view_item"),
        event(0),
    )
    assert compute_one("session_events", *late) == 5
    assert compute_one("session_duration_s", *late) == 3600


def test_of_two_events_at_the_same_time_the_earlier_arrival_is_the_previous_one():
    assert compute_one("since_cart_add_s", event(0, "add_to_cart"), event(0, "view_item")) == 0
    assert np.isnan(compute_one("since_cart_add_s", event(0, "view_item"), event(0, "add_to_cart")))


def test_late_events_of_the_same_time_keep_their_order_of_arrival():
    values = 2.0**53, 2.0**29, 1, 1  # summed newest first the ones count; oldest first rounding loses them
    first, second, third, fourth = (event(-10 * SECOND, "view_item", value=value) for value in values)
    assert compute_one("value_viewed_30m", first, second, event(-SECOND), third, fourth, event(0)) == 2**53 + 2**30


def test_the_first_event_of_a_user_has_nothing_before_it():
    for name in ("since_previous_event_s", "since_last_visit_s", "since_purchase_s", "session_mean_gap_s"):
        assert np.isnan(compute_one(name, event(0, "purchase")))


def test_the_time_since_an_item_or_a_category_is_that_since_its_last_event():
    seen = event(-50 * SECOND, item=7, category=3), event(-30 * SECOND, item=7, category=3), event(-9 * SECOND)
    assert compute_one("since_item_seen_s", *seen, event(0, item=7, category=4)) == 30
    assert compute_one("since_category_seen_s", *seen, event(0, item=8, category=3)) == 30
    for name in ("since_item_seen_s", "since_category_seen_s"):
        assert np.isnan(compute_one(name, *seen, event(0, item=8, category=4)))  # not seen before
        assert np.isnan(compute_one(name, *seen, event(0)))  # nothing to be seen again


def test_a_value_that_is_missing_adds_nothing():
    carts = [event(i, "add_to_cart", value=value) for i, value in enumerate((10, np.nan, 2.5))]
    assert compute_one("value_carted_30m", *carts) == 12.5


def test_a_price_is_compared_with_the_products_viewed_before():
    history = *(event(i, "view_item", value=value) for i, value in enumerate((10, 30, np.nan))), event(9, value=40)
    assert compute_one("value_to_viewed_mean", *history) == 2
    assert compute_one("value_rank_in_viewed", *history) == 1


def test_a_price_has_no_comparison_with_free_products():
    assert np.isnan(compute_one("value_to_viewed_mean", event(0, "view_item", value=0), event(1, value=40)))


def test_a_price_against_almost_nothing_stays_finite():
    assert compute_one("value_to_viewed_mean", event(0, "view_item", value=1e-40), event(1, value=1e9)) == 1e6


def test_an_item_taken_out_again_is_not_in_the_cart():
    added, removed = event(0, "add_to_cart", item=7), event(1, "remove_from_cart", item=7)
    assert compute_one("item_in_cart", added, event(2, item=7)) == 1
    assert compute_one("item_in_cart", added, removed, event(2, item=7)) == 0


def test_the_local_clock_follows_the_offset_across_midnight():
    assert compute_one("local_hour", event(0, utc_offset_quarters=-50)) == 23
    assert compute_one("local_weekday", event(0, utc_offset_quarters=-50)) == 1
    assert compute_one("local_weekday", event(0)) == 2


def test_the_history_length_decides_how_much_of_a_slice_is_seen():
    history = [event(i) for i in range(10)]
    assert compute_one("events_1m", *history, history_length=4) == 4
    assert compute_one("history_events", *history, history_length=4) == 4


def test_saturated_says_that_windows_may_miss_dropped_events():
    recent, old = event(-HOUR), event(-DAY)
    assert compute_one("saturated", recent, event(0), lifetime_events=[3]) == 1
    assert compute_one("saturated", recent, event(0), lifetime_events=[2]) == 0
    assert compute_one("saturated", old, event(0), lifetime_events=[3]) == 0


def test_an_event_kind_of_a_newer_version_counts_as_other():
    assert compute_one("event_kind", event(0, kind=200)) == 0
    assert compute_one("events_1m", event(0, kind=200)) == 1


def test_a_user_without_profile_is_unknown_everywhere():
    assert compute_one("profile_known", event(0)) == 0
    assert np.isnan(compute_one("marketing_consent", event(0)))
    assert np.isnan(compute_one("since_signup_days", event(0)))


def test_an_unknown_feature_is_refused_by_name():
    with pytest.raises(ValueError, match="unknown feature 'views_7m'"):
        FeatureComputer(["value", "views_7m"])


def test_a_repeated_feature_is_refused_by_name():
    with pytest.raises(ValueError, match="feature 'value' is listed twice"):
        FeatureComputer(["value", "scroll", "value"])


def test_a_history_length_of_nothing_is_refused():
    with pytest.raises(ValueError, match=r"history_length must be at least 1 \(got 0\)"):
        FeatureComputer(history_length=0)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("records", lambda array: array.view(np.uint8), r"records must have dtype .* \(got uint8\)"),
        ("starts", lambda array: array.astype(np.int32), r"starts must have dtype int64 \(got int32\)"),
        ("ends", lambda array: array[:-1], r"ends must have shape \(5,\) \(got \(4,\)\)"),
        ("profiles", lambda array: array.reshape(5, 1), r"profiles must have shape \(5,\) \(got \(5, 1\)\)"),
        ("starts", lambda array: array - 100, r"row 0 is records\[-\d+:\d+\] of 69"),
        ("ends", lambda array: array + 100, r"row 0 is records\[\d+:\d+\] of 69"),
    ],
)
def test_an_argument_that_does_not_fit_is_refused(name, change, message):
    arguments = random_batch(rows=5, history_length=64, seed=10)
    arguments[name] = change(arguments[name])
    with pytest.raises(ValueError, match=message):
        FeatureComputer().compute(**arguments)


def test_an_empty_slice_is_refused_by_its_row():
    arguments = random_batch(rows=5, history_length=64, seed=11)
    arguments["starts"][3] = arguments["ends"][3]
    with pytest.raises(ValueError, match="row 3 is .*: expected a non-empty slice within the records"):
        FeatureComputer().compute(**arguments)


def test_the_schema_hash_depends_on_names_order_and_history_length():
    hashes = {
        schema_hash(STANDARD, ["value", "scroll"], 64),
        schema_hash(STANDARD, ["scroll", "value"], 64),
        schema_hash(STANDARD, ["value"], 64),
        schema_hash(STANDARD, ["value", "scroll"], 65),
    }
    assert len(hashes) == 4
    assert schema_hash(STANDARD, ("value", "scroll"), 64) in hashes


def test_the_schema_hash_changes_with_the_meaning_of_a_feature_only():
    revised = replace(STANDARD["value"], text="now.value + 1")
    other = Declaration(tuple(revised if f.name == "value" else f for f in STANDARD.features))
    assert schema_hash(other, ["value", "scroll"], 64) != schema_hash(STANDARD, ["value", "scroll"], 64)
    assert schema_hash(other, ["scroll"], 64) == schema_hash(STANDARD, ["scroll"], 64)


@pytest.mark.slow
def test_a_command_that_computes_no_features_starts_without_loading_numba():
    commands = "training.promote, training.remote_bundle, jobs.ops.doctor.__main__"
    subprocess.run([sys.executable, "-c", f"import sys, {commands}; sys.exit('numba' in sys.modules)"], check=True)


def test_names_and_hashes_are_had_without_loading_numba():
    program = (
        "import sys; from udfs.features.declaration_file import STANDARD; from udfs.features.schema import schema_hash;"
        "schema_hash(STANDARD, STANDARD.names, 64); sys.exit('numba' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("names", [["events_5m", "country"], ["session_funnel_step", "value", "item_in_cart"], []])
def test_a_kernel_for_some_features_alone_gives_their_bits(names):
    arguments = random_batch(rows=200, history_length=64, seed=12)
    computer = FeatureComputer(names)
    before = computer.compute(**arguments)
    general = computer._compiled
    computer.specialise()
    assert computer.compute(**arguments).tobytes() == before.tobytes()
    assert computer._compiled is not general or not names


def test_features_that_need_all_work_have_the_kernel_of_the_declaration():
    computer = FeatureComputer(STANDARD.names[:-1])
    general = computer._compiled
    computer.specialise()
    assert computer._compiled is general
