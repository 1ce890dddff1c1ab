"""Effects by segment: who is in which, and what is told of them where the truth is known."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from msgspec.structs import replace

from tests.support.session_frames import experiment, frame
from training.experiments.comparison import compare
from training.experiments.segments import (
    MOST_VALUES,
    OTHERS,
    UNKNOWN,
    Segmentation,
    by_segment,
    countries,
    devices,
    segments_of,
    visit_history,
)
from udfs.measurement.design import Stretch
from udfs.measurement.effects import ALPHA
from udfs.measurement.kpis import load_kpis

ALL = load_kpis(Path(__file__).parents[4] / "conf" / "kpis.yaml")
KPIS = {name: replace(ALL[name], guardrail=None) for name in ("conversion_rate", "bounce_rate", "revenue_per_session")}
EXPERIMENT = experiment(Stretch(1_000, None, 0.5, 0.5))


def drawn(rng, users: int, baseline: dict[str, float], lift: dict[str, float] | None = None) -> pd.DataFrame:
    """A session of each user of both arms, who buys at the rate of the device; the treatment lifts it by a share."""
    lift = {} if lift is None else lift
    device = rng.choice(list(baseline), users)
    treated = rng.random(users) < 0.5
    rate = pd.Series(device).map(baseline) * (1 + treated * pd.Series(device).map(lift).fillna(0.0))
    bought = rng.random(users) < rate
    columns = {
        "user_id": [f"u{user}" for user in range(users)],
        "arm": np.where(treated, "challenger", "champion"),
        "device": device,
        "started_at": 1_000 + rng.permutation(users),
        "pages": 1 + rng.integers(0, 2, users),
        "purchases": bought.astype(int),
        "revenue": bought * rng.lognormal(3, 0.5, users),
        "is_bot": False,
    }
    sessions = pd.DataFrame(
        dict.fromkeys(("events", "view_promotions", "select_promotions", "add_to_carts", "begin_checkouts"), 1)
        | dict.fromkeys(("form_starts", "form_submits"), 0)
        | columns
    )
    version = sessions["arm"].map({"challenger": "v2", "champion": "v1"})
    return sessions.assign(model_version=version, ended_at=sessions["started_at"] + 1_000)


def by_device(sessions: pd.DataFrame, kpis=KPIS) -> Segmentation:
    report = compare(sessions, kpis, EXPERIMENT)
    (found,) = by_segment(sessions, report, {"device": devices(sessions, EXPERIMENT)})
    return found


def significant(found: Segmentation) -> set[tuple[str, str]]:
    return {
        (segment.name, kpi)
        for segment in found.segments
        for kpi, finding in segment.findings.items()
        if finding.is_better or finding.is_worse
    }


def differing(found: Segmentation) -> set[tuple[str, str]]:
    return {
        (segment.name, kpi)
        for segment in found.segments
        for kpi, contrast in segment.contrasts.items()
        if contrast.differs
    }


# The truth is known


def test_an_effect_on_one_device_is_found_there_and_found_to_differ():
    rates = {"mobile": 0.2, "desktop": 0.2, "tablet": 0.2}
    found = by_device(drawn(np.random.default_rng(1), 12_000, rates, {"mobile": 0.5}))
    money = {("mobile", "conversion_rate"), ("mobile", "revenue_per_session")}
    assert significant(found) == money
    assert money <= differing(found)
    assert {segment.name for segment in found.segments} == set(rates)
    mobile = next(segment for segment in found.segments if segment.name == "mobile")
    assert mobile.findings["conversion_rate"].effect.relative.value == pytest.approx(0.5, abs=0.12)
    assert mobile.contrasts["conversion_rate"].others == pytest.approx(0, abs=0.1)
    assert mobile.findings["conversion_rate"].is_better


def test_an_effect_on_all_devices_alike_does_not_differ_though_some_buy_more():
    rates = {"mobile": 0.1, "desktop": 0.45}
    found = by_device(drawn(np.random.default_rng(2), 20_000, rates, dict.fromkeys(rates, 0.4)))
    assert {("mobile", "conversion_rate"), ("desktop", "conversion_rate")} <= significant(found)
    assert differing(found) == set()
    differences = [segment.findings["conversion_rate"].effect.difference for segment in found.segments]
    assert max(differences) > 3 * min(differences)


@pytest.mark.slow
def test_without_an_effect_there_are_few_false_alarms_in_many_segments():
    rng = np.random.default_rng(3)
    rates = dict.fromkeys("abcdef", 0.4)
    runs, alarms, ordinary = 20, 0, 0
    for _ in range(runs):
        found = by_device(drawn(rng, 1_200, rates))
        assert len(found.segments) == len(rates)
        alarms += bool(significant(found) or differing(found))
        effects = [finding.effect for one in found.segments for finding in one.findings.values()]
        ordinary += any(abs(effect.difference) > 1.96 * effect.variance**0.5 for effect in effects)
    assert alarms <= ALPHA * runs < ordinary


def test_an_effect_is_that_of_the_segments_users_alone():
    sessions = drawn(np.random.default_rng(4), 2_000, {"mobile": 0.3, "desktop": 0.2}, {"mobile": 0.5})
    found = by_device(sessions)
    of_mobile = sessions[sessions["device"] == "mobile"]
    alone = compare(of_mobile, {"conversion_rate": KPIS["conversion_rate"]}, EXPERIMENT)
    (mobile,) = (segment for segment in found.segments if segment.name == "mobile")
    assert mobile.findings["conversion_rate"].effect == alone.findings["conversion_rate"].effect
    assert mobile.users == len(of_mobile)


def test_the_order_of_sessions_and_users_does_not_matter():
    sessions = drawn(np.random.default_rng(5), 2_000, {"mobile": 0.3, "desktop": 0.2, "tablet": 0.2})
    again = sessions.assign(device="tv", started_at=sessions["started_at"])[::3]  # equally early
    sessions = pd.concat([sessions, again], ignore_index=True)
    found, shuffled = by_device(sessions), by_device(sessions.sample(frac=1, random_state=5))
    assert [(one.name, one.users) for one in found.segments] == [(one.name, one.users) for one in shuffled.segments]
    for one, other in zip(found.segments, shuffled.segments):
        for kpi in KPIS:
            first, second = one.findings[kpi].effect, other.findings[kpi].effect
            assert first.p_value == pytest.approx(second.p_value)
        assert one.contrasts.keys() == other.contrasts.keys()
        for kpi, contrast in one.contrasts.items():
            assert contrast == pytest.approx(other.contrasts[kpi])


def test_limits_on_orders_are_those_of_the_report():
    sessions = drawn(np.random.default_rng(6), 2_000, {"mobile": 0.3, "desktop": 0.3})
    sessions.loc[sessions["device"] == "mobile", "revenue"] *= 10
    report = compare(sessions, KPIS, EXPERIMENT)
    cap = report.findings["revenue_per_session"].cap
    assert cap
    assert {one.findings["revenue_per_session"].cap for one in by_device(sessions).segments} == {cap}


def test_the_correction_is_over_all_attributes():
    sessions = drawn(np.random.default_rng(7), 4_000, {"mobile": 0.2, "desktop": 0.2}, {"mobile": 0.4})
    kpis = {"conversion_rate": KPIS["conversion_rate"]}
    report = compare(sessions, kpis, EXPERIMENT)
    device = devices(sessions, EXPERIMENT)
    (alone,) = by_segment(sessions, report, {"device": device})
    noise = {
        f"noise {number}": pd.Series(
            np.random.default_rng(number).integers(0, 8, len(device)).astype(str), device.index
        )
        for number in range(10)
    }
    among = by_segment(sessions, report, {"device": device, **noise})[0]
    p_values = [segment.findings["conversion_rate"].effect.p_value for segment in alone.segments]
    assert ALPHA / 82 < min(p_values) < ALPHA / 2
    assert significant(alone) == {("mobile", "conversion_rate")}
    assert significant(among) == set()


# Who is in which segment


def test_the_device_is_that_of_the_first_session_in_the_experiment():
    who = {"user_id": "ada", "is_bot": False, "arm": "champion"}
    sessions = frame(
        [
            who | {"started_at": 0, "device": "before"},
            who | {"started_at": 1_500, "device": "control", "arm": "control"},
            who | {"started_at": 1_700, "device": "bot", "is_bot": True},
            who | {"started_at": 3_000, "device": "later"},
            who | {"started_at": 2_000, "device": "first"},
            {"user_id": "bob", "is_bot": False, "arm": "challenger", "started_at": 2_000, "device": None},
            {"user_id": "eve", "is_bot": False, "arm": "challenger", "started_at": 500, "device": "early"},
        ]
    )
    assert devices(sessions, EXPERIMENT).to_dict() == {"ada": "first", "bob": None}


def test_who_came_before_the_experiment_is_returning_unless_it_was_a_bot():
    who = {"is_bot": False, "arm": "champion", "started_at": 2_000, "device": None}
    sessions = frame(
        [
            *(who | {"user_id": user} for user in ("ada", "bob", "eve")),
            who | {"user_id": "ada", "started_at": 999},
            who | {"user_id": "bob", "started_at": 1_000},
            who | {"user_id": "eve", "started_at": 999, "is_bot": True},
        ]
    )
    assert visit_history(sessions, EXPERIMENT).to_dict() == {"ada": "returning", "bob": "new", "eve": "new"}
    assert visit_history(sessions[sessions["started_at"] >= 1_000], EXPERIMENT).empty


def test_the_country_is_that_of_the_profile_at_the_first_session():
    who = {"is_bot": False, "arm": "champion", "device": None}
    sessions = frame(
        [who | {"user_id": user, "started_at": time} for user, time in (("ada", 2_000), ("ada", 3_000), ("bob", 2_000))]
    )
    rows = [("ada", 1_900, "FR"), ("ada", 0, "DE"), ("ada", 2_001, "US"), ("bob", 2_001, "US"), ("eve", 0, "IT")]
    profiles = pd.DataFrame(rows, columns=["user_id", "since_ms", "country"])
    assert countries(profiles, sessions, EXPERIMENT).to_dict() == {"ada": "FR"}


def test_small_values_are_pooled_and_missing_ones_are_not():
    sizes = {f"c{number:02}": 20 - number for number in range(14)}
    values = [value for value, size in sizes.items() for _ in range(size)] + [None] * 3 + [np.nan] * 2
    found = segments_of(pd.Series(values, dtype=object)).value_counts().to_dict()
    kept = dict(list(sizes.items())[:MOST_VALUES])
    assert found == kept | {OTHERS: sum(sizes.values()) - sum(kept.values()), UNKNOWN: 5}


def test_small_segments_have_no_data_and_the_rest_does():
    rng = np.random.default_rng(8)
    sessions = pd.concat(
        [drawn(rng, 600, {"mobile": 0.3, "desktop": 0.3}), drawn(rng, 8, {"tv": 0.5}).assign(user_id=list("abcdefgh"))],
        ignore_index=True,
    )
    found = by_device(sessions)
    assert [segment.name for segment in found.segments][-1] == "tv"
    tv = found.segments[-1]
    assert "too few users" in tv.findings["conversion_rate"].no_data
    assert tv.contrasts == {}
    assert all(segment.findings["conversion_rate"].effect for segment in found.segments[:-1])


@pytest.mark.parametrize(
    ("sessions", "reason"),
    [
        (drawn(np.random.default_rng(9), 200, {"mobile": 0.3}), "the device of all users is mobile"),
        (drawn(np.random.default_rng(9), 200, {"x": 0.3}).assign(device=None), "the device of all users is unknown"),
        (drawn(np.random.default_rng(9), 200, {"x": 0.3})[:0], "no users"),
    ],
    ids=["one", "unknown", "empty"],
)
def test_without_two_segments_there_are_no_data(sessions, reason):
    assert by_device(sessions) == Segmentation("device", (), reason)
