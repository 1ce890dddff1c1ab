import json
from collections import Counter, defaultdict, deque
from dataclasses import replace
from datetime import datetime
from functools import cache

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from tests.support.calibration import calibration_errors
from training.simulate import main
from training.simulation.behaviour import (
    BUY,
    CART_LIMIT,
    LEAVE,
    Behaviour,
    ShoppingContext,
    action_probabilities,
    decay,
    draw_actions,
    draw_pauses,
    state_after,
)
from training.simulation.clickstream import Clickstream, Simulation, best_auc, simulate
from training.simulation.malformed import BREAK, with_broken
from training.simulation.propensity import purchase_propensity
from training.simulation.traffic import SLOTS
from udfs.contracts.clicks import ClickDecoder
from udfs.contracts.packed_events import EVENT_KINDS
from udfs.contracts.profiles import ProfileDecoder
from udfs.contracts.rejects import Reason

#: Reasons of records that are in the contract's format. The others are those of mappings and of other formats.
OF_CLICKS = set(Reason) - {
    Reason.UNFIT_ROW,
    Reason.IGNORED,
    Reason.UNKNOWN_CURRENCY,
    Reason.INVALID_FRAME,
    Reason.UNKNOWN_SCHEMA,
    Reason.INVALID_AVRO,
    Reason.INVALID_PROTOBUF,
}

SMALL = Simulation(users=200, seed=3)


@cache
def small() -> Clickstream:
    return simulate(SMALL)


@pytest.fixture(scope="module")
def stream():
    return simulate(Simulation(users=4_000, seed=5))


def encode(records) -> list[bytes]:
    return [json.dumps(record).encode() for record in records]


def eligible_labels(stream) -> tuple[np.ndarray, np.ndarray]:
    labels, rows = stream.labels()
    rows = np.flatnonzero(rows)
    return rows, labels[rows]


def test_equal_configurations_give_equal_streams():
    first, second = small(), simulate(SMALL)
    assert list(first.clicks()) == list(second.clicks())
    assert first.profiles == second.profiles
    assert np.array_equal(first.propensity, second.propensity)


def test_another_seed_gives_another_stream():
    assert list(small().clicks()) != list(simulate(replace(SMALL, seed=4)).clicks())


def test_every_click_keeps_the_contract():
    stream = simulate(replace(SMALL, late_share=0.1))
    decoded = ClickDecoder().decode(encode(stream.clicks()), stream.arrival_ms.tolist())
    assert set(decoded.reasons) == {None}
    assert len(set(decoded.event_ids)) == len(stream)


def test_a_part_of_a_stream_has_what_arrives_in_that_time():
    stream = small()
    middle, end = int(stream.arrival_ms[len(stream) // 2]), int(stream.arrival_ms[-1]) + 1
    parts = stream.between(0, middle), stream.between(middle, end)
    assert parts[0].arrival_ms.max() < middle <= parts[1].arrival_ms.min()
    for name in ("events", "arrival_ms", "propensity"):
        assert np.array_equal(np.concatenate([getattr(part, name) for part in parts]), getattr(stream, name))
    assert len({click["event_id"] for part in parts for click in part.clicks()}) == len(stream)


def test_every_kind_of_event_of_the_shop_occurs(stream):
    assert {EVENT_KINDS[kind] for kind in np.unique(stream.kind)} == set(EVENT_KINDS) - {"other", "select_item"}


def test_clicks_carry_what_their_kind_of_event_has():
    by_name = {click["event_name"]: click for click in small().clicks()}
    assert by_name["view_item"].keys() >= {"item_id", "item_category", "price", "page_location", "page_type"}
    assert by_name["add_to_cart"]["quantity"] >= 1
    assert by_name["purchase"].keys() >= {"item_id", "item_category", "price"}
    assert by_name["purchase"]["page_location"] == "/checkout/done"
    assert by_name["purchase"]["value"] > 0
    assert by_name["purchase"]["page_type"] == "confirmation"
    assert by_name["scroll"]["percent_scrolled"] > 0
    assert by_name["user_engagement"]["engagement_time_msec"] > 0


def test_users_buy_and_remove_what_they_have_in_the_cart(stream):
    in_cart = defaultdict(lambda: deque(maxlen=CART_LIMIT))
    bought = 0
    # In the order of the users' actions, in which they may not arrive.
    for click in sorted(stream.clicks(), key=lambda click: click["event_time"]):
        cart, name = in_cart[click["user_id"]], click["event_name"]
        of_click = tuple(click.get(field) for field in ("item_id", "item_category", "price"))
        if name == "add_to_cart":
            cart.append(of_click)
        elif name == "remove_from_cart":
            assert of_click == cart.pop()
        elif name == "purchase":
            assert of_click == cart[-1]
            cart.clear()
            bought += 1
    assert bought > 20


def test_promotions_and_nothing_else_stand_in_a_slot_of_the_page_that_they_are_on(stream):
    on_page = Counter()
    for click in stream.clicks():
        is_promotion = click["event_name"] in ("view_promotion", "select_promotion")
        assert ("creative_slot" in click) == is_promotion
        if click["event_name"] == "view_promotion":
            on_page[click["page_type"], click["creative_slot"]] += 1
    assert set(on_page) == {(("home", "category")[number // 2], slot) for number, slot in enumerate(SLOTS)}


def test_recommendations_are_clicked_more_often_than_what_stands_first(stream):
    promotions = Counter(
        (click["event_name"], click["creative_slot"]) for click in stream.clicks() if "creative_slot" in click
    )
    rate = {slot: promotions["select_promotion", slot] / promotions["view_promotion", slot] for slot in SLOTS}
    assert 0.1 < rate["home_hero"] < rate["home_recommendations"] < 1
    assert 0.1 < rate["list_banner"] < rate["list_recommendations"] < 1


def test_every_profile_keeps_the_contract(stream):
    decoded = ProfileDecoder().decode([None] * len(stream.profiles), encode(stream.profiles))
    assert set(decoded.reasons) == {None}


def test_some_profiles_lack_fields_some_come_or_change_mid_stream_and_some_users_have_none(stream):
    times_ms = [profile["updated_at"] for profile in stream.profiles]
    users = {profile["user_id"] for profile in stream.profiles}
    assert times_ms == sorted(times_ms)
    assert times_ms[0] < times_ms[-1]
    assert len(users) < min(len(stream.profiles), len(stream.people))
    assert any(profile["signup_date"] is None for profile in stream.profiles)
    assert any("membership_tier" not in profile for profile in stream.profiles)


def test_the_base_rate_and_the_best_auc_are_those_of_a_plausible_shop(stream):
    _, labels = eligible_labels(stream)
    assert 0.03 < labels.mean() < 0.08
    assert 0.85 < best_auc(stream) < 0.92


def test_best_auc_ranks_by_propensity_and_a_blurred_propensity_ranks_worse(stream):
    rows, labels = eligible_labels(stream)
    propensity = stream.propensity[rows]
    assert best_auc(stream) == roc_auc_score(labels, propensity)
    blurred = propensity * np.random.default_rng(0).lognormal(0, 1, len(rows))
    assert roc_auc_score(labels, blurred) < best_auc(stream) - 0.01


def test_the_propensity_is_calibrated_against_what_users_then_do(stream):
    assert np.abs(calibration_errors(stream, stream.propensity)).max() < 4


def test_a_propensity_half_as_large_again_would_not_be_calibrated(stream):
    assert np.abs(calibration_errors(stream, stream.propensity * 1.5)).max() > 4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("context", "cart", "intent", "behaviour"),
    [
        (ShoppingContext.HOME, 0, 0.0, 0),
        (ShoppingContext.PRODUCT, 0, 2.0, 0),
        (ShoppingContext.CART, 2, 1.0, 0),
        (ShoppingContext.FORM, 1, 0.5, 0),
        (ShoppingContext.LIST, 1, 4.0, 0),
        (ShoppingContext.HOME, 0, 1.0, Behaviour.LIFTED),
        (ShoppingContext.PRODUCT, 1, 1.0, Behaviour.SHIFTED),
        (ShoppingContext.LIST, 0, 2.0, Behaviour.LIFTED | Behaviour.SHIFTED),
    ],
)
def test_the_propensity_is_what_playing_the_chain_many_times_gives(context, cart, intent, behaviour):
    rng, n = np.random.default_rng(11), 40_000
    context, cart, intent, behaviour = (np.full(n, int(context)), np.full(n, cart), np.full(n, intent), int(behaviour))
    expected = purchase_propensity(context[:1], cart[:1], intent[:1], np.array([behaviour]))[0]
    left_s = np.full(n, 1800.0)
    purchases = 0
    while len(context):
        pauses = draw_pauses(context, behaviour, rng)
        left_s, intent = left_s - pauses, decay(intent, pauses)
        actions = draw_actions(context, cart, intent, behaviour, rng)
        in_time = left_s >= 0
        purchases += int((in_time & (actions == BUY)).sum())
        goes_on = in_time & (actions != BUY) & (actions != LEAVE)
        context, cart, intent = (part[goes_on] for part in state_after(context, cart, intent, behaviour, actions))
        left_s = left_s[goes_on]
    error = np.sqrt(expected * (1 - expected) / n)
    assert purchases / n == pytest.approx(expected, abs=4 * error)


def test_a_longer_horizon_raises_the_propensity():
    state = np.array([ShoppingContext.PRODUCT]), np.array([1]), np.array([1.0]), np.array([0])
    assert purchase_propensity(*state, horizon_s=60) < purchase_propensity(*state, horizon_s=1800)


def test_what_needs_a_cart_does_not_happen_without_one():
    needy = action_probabilities(np.array([ShoppingContext.CART]), np.array([0]), np.array([1.0]), 0)[0]
    able = action_probabilities(np.array([ShoppingContext.CART]), np.array([1]), np.array([1.0]), 0)[0]
    assert (needy > 0).sum() < (able > 0).sum()
    assert (needy.sum(), able.sum()) == pytest.approx((1, 1))


def test_bots_are_fast_and_even_and_never_buy():
    stream = simulate(replace(SMALL, bot_share=1.0))
    assert {EVENT_KINDS[kind] for kind in np.unique(stream.kind)} == {"view_item", "view_item_list"}
    assert not stream.propensity.any()
    assert not stream.profiles
    times_ms = np.sort(stream.events["time_ms"][stream.events["user"] == stream.events["user"][0]])
    assert np.median(np.diff(times_ms)) < 3_100


def test_late_events_arrive_after_newer_ones_and_are_the_same_events():
    on_time, late = small(), simulate(replace(SMALL, late_share=0.3))
    assert (np.diff(late.arrival_ms) >= 0).all()
    assert (late.arrival_ms >= late.events["time_ms"]).all()
    assert (np.diff(on_time.events["time_ms"]) >= 0).all()
    assert (np.diff(late.events["time_ms"]) < 0).any()
    by_user = [np.lexsort((events["time_ms"], events["user"])) for events in (on_time.events, late.events)]
    assert on_time.events[by_user[0]].tobytes() == late.events[by_user[1]].tobytes()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("seed", -1),
        ("users", 0),
        ("hours", 0),
        ("visits_per_day", float("inf")),
        ("bot_share", 1.1),
        ("late_share", float("nan")),
        ("shift_at", -1),
        ("lift_at", float("nan")),
        ("lift_end", 1.5),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(field, value):
    with pytest.raises(ValueError, match=rf"{field} must be .* \(got {value}\)"):
        Simulation(**{field: value})


def test_a_start_without_utc_offset_is_refused():
    with pytest.raises(ValueError, match=r"start must be a time with a UTC offset \(got 2026-01-01 00:00:00\)"):
        Simulation(start=datetime(2026, 1, 1))


def test_there_is_a_broken_record_for_every_reason():
    assert set(BREAK) == OF_CLICKS


@pytest.mark.parametrize("reason", BREAK)
def test_a_broken_record_is_rejected_for_its_reason(reason):
    click = next(small().clicks())
    assert ClickDecoder().decode([BREAK[reason](click)], [click["event_time"]]).reasons == [reason.value]


def test_broken_records_come_in_their_share_beside_all_good_clicks():
    clicks = list(small().clicks())
    mixed = list(with_broken(clicks, share=0.2))
    assert [json.loads(payload) for payload, reason in mixed if reason is None] == clicks
    reasons = [reason for _, reason in mixed if reason is not None]
    assert len(reasons) / len(mixed) == pytest.approx(0.2, abs=0.03)
    assert set(reasons) == OF_CLICKS


def test_a_share_of_one_broken_record_each_is_refused():
    with pytest.raises(ValueError, match=r"share of broken records must be at least 0 and below 1 \(got 1"):
        list(with_broken([], share=1))


def test_the_command_writes_clicks_profiles_and_propensities(tmp_path, capsys):
    options = ["--users", "50", "--hours", "12", "--seed", "2", "--start", "2026-03-01"]
    assert main([*options, "--out", str(tmp_path / "new")]) == 0
    clicks, profiles, propensities = (
        [json.loads(line) for line in (tmp_path / "new" / f"{name}.jsonl").read_text().splitlines()]
        for name in ("clicks", "profiles", "propensity")
    )
    assert [click["event_id"] for click in clicks] == [entry["event_id"] for entry in propensities]
    assert all(0 <= entry["propensity"] <= 1 for entry in propensities)
    assert datetime.fromisoformat("2026-03-01T00:00:00+00:00").timestamp() * 1000 <= clicks[0]["event_time"]
    assert profiles
    assert f"{len(clicks)} events of 50 users" in capsys.readouterr().out


def test_the_command_tells_of_an_error_in_one_line(tmp_path, capsys):
    assert main(["--users", "0", "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err == "simulate: users must be at least 1 (got 0)\n"
