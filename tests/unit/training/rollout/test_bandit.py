"""The bandit of a rollout: what it says of the arms, which shares follow, and the commands that obey it."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import asdict, replace
from scipy.stats import binomtest

from tests.support.ledgers import entries_of
from tests.support.sample_records import sample
from tests.unit.training.rollout.test_guardrails import Policy, policy  # noqa: F401, a fixture
from tests.unit.training.test_promote import Shop
from training.retraining.auto_ramp import reallocate as reallocate_regularly
from training.retraining.settings import RETRAINING_FILE, load_retraining
from training.rollout import bandit
from training.rollout.ledger import append, next_entry
from training.rollout.transitions import ChangeError, first, ramp, reallocate, start, stop, to_champion
from udfs.measurement.kpis import COUNTED, KPIS_FILE, load_kpis
from udfs.rollout.assignment import CONTROL, arms, assign, propensities
from udfs.rollout.plan import Bandit, Control, Rollout, RolloutError
from udfs.rollout.registry import Registry
from udfs.rollout.rules import Rule

KPIS = load_kpis(Path("conf", KPIS_FILE))
DAY_MS = 86_400_000
START_MS = 1_800_000_000_000
CONTROLLED = replace(
    first("v1"), control=Control(share=0.04, at_most=0.1), rule=Rule(any=("cart_adds_30m >= 1",)), bandit=Bandit()
)
USERS = [f"user-{number}" for number in range(20_000)]
#: The counts of sessions that are 0 here.
UNUSED = [name for name in COUNTED if name != "purchases"]


def begun(versions: str = "v2 v3") -> Rollout:
    """A rollout in which the bandit has these challengers."""
    rollout = CONTROLLED
    for version in versions.split():
        rollout = start(rollout, version, None, 0.5)
    return rollout


def shares_of(rollout: Rollout) -> list[float]:
    return [part.share for part in rollout.challengers]


# Changes of the rollout


def test_a_challenger_starts_with_the_floor_and_the_others_keep_theirs():
    rollout = begun("v2")
    assert shares_of(rollout) == pytest.approx([0.045])
    rollout = reallocate(rollout, {"v2": 0.855}, "s")
    rollout = start(rollout, "v3", None, 0.5)
    assert shares_of(rollout) == pytest.approx([0.9 * 0.9, 0.9 * 0.05], abs=1e-6)
    assert rollout.champion_share == pytest.approx(0.06 + 0.9 * 0.05, abs=1e-6)
    assert rollout.challenger_salt == "v3"


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=4), st.floats(0.01, 0.16))
def test_no_start_takes_the_floor_from_anybody(weights, floor):
    rollout = replace(
        begun(" ".join(f"v{number}" for number in range(2, 2 + len(weights)))), bandit=Bandit(floor=floor)
    )
    room, arms_ = rollout.model_share, len(weights) + 1
    parts = floor + (1 - arms_ * floor) * np.array(weights) / max(1.0, sum(weights))
    before = reallocate(rollout, dict(zip(rollout.versions[1:], (room * parts).round(6).tolist())), "s")
    after = start(before, "new", None, 0.5)
    assert min(shares_of(after)) >= room * floor - 1e-6
    assert room - sum(shares_of(after)) >= room * floor - 1e-5


def test_more_arms_than_the_floor_has_room_for_are_refused():
    rollout = replace(begun("v2"), bandit=Bandit(floor=0.4))
    with pytest.raises(RolloutError, match=r"key bandit.floor: 3 arms can have at most 0.3333 each \(got 0.4\)"):
        start(rollout, "v3", None, 0.5)
    with pytest.raises(RolloutError, match="key bandit.floor"):
        start(reallocate(rollout, {"v2": 0.36}, "s"), "v3", None, 0.5)


def test_a_reallocation_draws_all_users_outside_control_afresh():
    before = reallocate(begun(), {"v2": 0.3, "v3": 0.1}, "one")
    after = reallocate(before, {"v2": 0.2, "v3": 0.4}, "another")
    assert [part.start for part in after.challengers] == pytest.approx([0.1, 0.3])
    assert [part.at_most for part in after.challengers] == [0.2, 0.4]
    was, is_ = (assign(rollout, USERS, np.ones(len(USERS), bool)) for rollout in (before, after))
    assert ((was == CONTROL) == (is_ == CONTROL)).all()
    for number, share in enumerate((0.2, 0.4), CONTROL + 1):
        assert binomtest(int((is_ == number).sum()), len(USERS), share).pvalue > 1e-4
        kept = int(((was == CONTROL + 1) & (is_ == number)).sum())
        assert binomtest(kept, int((was == CONTROL + 1).sum()), share / after.model_share).pvalue > 1e-4


def test_shares_are_of_the_challengers_and_have_room():
    with pytest.raises(ChangeError, match="shares are of v2, challengers are v2, v3: look again"):
        reallocate(begun(), {"v2": 0.1}, "s")
    with pytest.raises(RolloutError, match="the sum of at_most must be at most 1"):
        reallocate(begun(), {"v2": 0.5, "v3": 0.5}, "s")


def test_the_bandit_alone_gives_shares():
    rollout = begun()
    with pytest.raises(ChangeError, match="the bandit gives v2 its share: `reallocate`.*bandit: null"):
        ramp(rollout, "v2", 0.2)
    with pytest.raises(ChangeError, match="the bandit gives v4 its share: leave --share out"):
        start(rollout, "v4", 0.1, 0.5)
    assert shares_of(stop(rollout, "v2")) == shares_of(rollout)[1:]


def test_who_has_more_users_than_the_champion_can_take_its_place():
    with pytest.raises(ChangeError, match="v2 has 0.2 of the users, the champion 0.56: it becomes champion once"):
        to_champion(reallocate(begun(), {"v2": 0.2, "v3": 0.2}, "s"), "v2")
    rollout = to_champion(reallocate(begun(), {"v2": 0.7, "v3": 0.1}, "s"), "v2")
    assert (rollout.champion, rollout.versions) == ("v2", ("v2", "v3"))


def test_a_propensity_is_the_share_of_the_users_whom_an_arm_gets():
    rollout = reallocate(begun(), {"v2": 0.3, "v3": 0.1}, "one")
    arm = assign(rollout, USERS, np.ones(len(USERS), bool))
    for number, (of, probability) in enumerate(zip(arms(rollout), propensities(rollout))):
        if of.name == "not_eligible":
            assert probability == 1.0
        else:
            assert binomtest(int((arm == number).sum()), len(USERS), probability).pvalue > 1e-4
    assert sum(propensities(rollout)) == pytest.approx(2.0)


# Looks


def ledger(*shares: tuple[float, float]) -> list:
    """Entries of a day each, with shares of v2 and v3."""
    rollouts = [
        (START_MS + day * DAY_MS, reallocate(begun(), dict(zip(("v2", "v3"), split)), f"s{day}"))
        for day, split in enumerate(shares)
    ]
    return entries_of((START_MS - DAY_MS, CONTROLLED), *rollouts)


def served(
    entries, rates: dict[str, float], users: int = 12_000, season=(1.0, 1.0, 1.0), seed: int = 1
) -> pd.DataFrame:
    """A session a day of each user who is there, in the arm of the ledger; those of a version buy at its rate."""
    rng = np.random.default_rng(seed)
    parts = []
    for entry, factor in zip(entries[1:], season):
        rollout, day_ms = entry.rollout, int(entry.at.timestamp() * 1000)
        there = rng.choice(2 * users, users, replace=False)
        arm = assign(rollout, [f"user-{user}" for user in there], np.ones(users, bool))
        version = np.array([one.version for one in arms(rollout)])[arm]
        bought = rng.random(users) < factor * np.array([rates[one] for one in version])
        parts.append(
            pd.DataFrame(
                {
                    "user_id": [f"user-{user}" for user in there],
                    "arm": np.array([one.name for one in arms(rollout)])[arm],
                    "model_version": version,
                    "started_at": day_ms + rng.integers(0, DAY_MS, users),
                    "purchases": bought.astype(int),
                    "revenue": 20.0 * bought,
                    "pages": 1 + (rng.random(users) < 0.5),
                    "events": 3,
                }
            )
        )
    rows = pd.concat(parts, ignore_index=True)
    return rows.assign(ended_at=rows["started_at"] + 1_000, is_bot=False, **dict.fromkeys(UNUSED, 0))


FLAT = {"v1": 0.1, "v2": 0.1, "v3": 0.1}


@pytest.mark.slow
def test_the_better_arm_gets_the_users_and_a_sale_does_not_matter():
    entries = ledger((0.05, 0.05), (0.3, 0.05), (0.3, 0.3))
    found = bandit.look(entries, served(entries, FLAT | {"v3": 0.13}, season=(2.5, 1.0, 1.0)), KPIS)
    champion, second, third = found.arms
    assert third.new_share > 0.6
    assert third.effect[0] == pytest.approx(0.25, abs=0.12)
    assert (champion.effect, champion.old_share) == (None, pytest.approx(0.36))
    assert sum(arm.new_share for arm in found.arms) == pytest.approx(1 - CONTROLLED.control.share)
    assert min(second.new_share, third.new_share) >= 0.045 - 1e-6
    assert found == bandit.look(entries, served(entries, FLAT | {"v3": 0.13}, season=(2.5, 1.0, 1.0)), KPIS)
    lines = bandit.lines(found)
    assert lines[0].startswith("champion    v1  conversion_rate is the measure, best with")
    assert "share 30.00% -> " in lines[2]


def test_a_challenger_that_its_verdict_stops_keeps_the_floor():
    entries = ledger((0.4, 0.2))
    rows = served(entries, FLAT | {"v2": 0.14})
    bounced = (rows["model_version"] == "v2") & (np.arange(len(rows)) % 5 > 0)
    rows.loc[bounced, "pages"] = 1  # more conversions, and a broken guardrail
    found = bandit.look(entries, rows, KPIS)
    stopped = found.arms[1]
    assert (stopped.probability, stopped.new_share) == (0.0, pytest.approx(0.045))
    assert "the floor only: Stop challenger v2: bounce rate" in stopped.note
    assert "the floor only" in bandit.lines(found)[1]


def test_an_arm_without_users_keeps_the_prior():
    entries = ledger((0.3, 0.3))
    rows = served(entries, FLAT)
    entries = [*entries, *entries_of((START_MS + DAY_MS, start(entries[-1].rollout, "v4", None, 0.5)))]
    found = bandit.look(entries, rows, KPIS)
    assert found.arms[3].note == "it has no users yet beside the champion's"
    assert found.arms[3].probability > 0.2


def test_a_kpi_where_less_is_better():
    entries = ledger((0.3, 0.3))
    rows = served(entries, FLAT)
    rows.loc[(rows["model_version"] == "v2") & (np.arange(len(rows)) % 4 == 0), "pages"] = 2
    lower = entries_of(*((int(one.at.timestamp() * 1000), replace(one.rollout, bandit=Bandit(kpi="bounce_rate")))
                         for one in entries))  # fmt: skip
    assert bandit.look(lower, rows, KPIS).arms[1].probability > 0.95


def mismatch(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[(rows["model_version"] != "v2") | (np.arange(len(rows)) % 2 == 0)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (mismatch, "the shares stay as they are: v2: Fix first: sample ratio mismatch"),
        (lambda rows: rows[:0], "the shares stay as they are: no data on conversion_rate: v2: it has no users yet"),
        (lambda rows: rows.assign(is_bot=True), "the shares stay as they are: no data on conversion_rate"),
    ],
)
def test_the_shares_stay_where_the_sessions_cannot_be_trusted_or_say_nothing(change, message):
    entries = ledger((0.3, 0.3))
    with pytest.raises(ChangeError, match=message):
        bandit.look(entries, change(served(entries, FLAT)), KPIS)


def test_a_kpi_that_is_not_defined_is_named():
    entries = entries_of((START_MS, replace(begun(), bandit=Bandit(kpi="profit"))))
    with pytest.raises(ChangeError, match=r"key bandit.kpi: profit is not defined in kpis.yaml; expected one of click"):
        bandit.look(entries, pd.DataFrame(), KPIS)


def test_without_a_bandit_or_a_challenger_there_is_nothing_to_look_at():
    with pytest.raises(ChangeError, match="the rollout has no bandit: set one by `apply`"):
        bandit.refuse_early(entries_of((START_MS, replace(begun(), bandit=None))), datetime.now(UTC))
    with pytest.raises(ChangeError, match="no challenger to give a share to"):
        bandit.refuse_early(entries_of((START_MS, CONTROLLED)), datetime.now(UTC))


def test_a_split_holds_for_its_time_whatever_else_changes():
    entries = ledger((0.3, 0.3), (0.2, 0.2))
    other = replace(entries[-1].rollout, shadows=("v9",))
    entries = [*entries, *entries_of((START_MS + DAY_MS + 3_600_000, other))]
    due = datetime.fromtimestamp(START_MS / 1000, UTC) + timedelta(days=2)
    assert bandit.next_look(entries) == due
    bandit.refuse_early(entries, due)
    with pytest.raises(ChangeError, match="the shares hold for 1 d at least, key bandit.every: repeat this from"):
        bandit.refuse_early(entries, due - timedelta(seconds=1))


# Commands


@pytest.fixture
def shop(tmp_path, capsys) -> Shop:
    """A bandit with two challengers, whose shares may change at once."""
    shop = Shop(tmp_path, capsys)
    for version in ("v1", "v2", "v3"):
        shop.stage(version)
    shop.do("start", "v1", "--champion")
    shop.apply(bandit={"floor": 0.1, "every": "1 ms"})
    for version in ("v2", "v3"):
        out = shop.do("start", version, "--at-most", "0.5")
    assert "users are drawn afresh only" not in out
    return shop


def records(shop: Shop, users: int = 6_000) -> list[dict]:
    """A session of each user since the split, in which v3 sells more."""
    rollout, now_ms = shop.rollout, int(shop.entry.at.timestamp() * 1000) + 1
    arm = assign(rollout, USERS[:users], np.ones(users, bool))
    rates = {"v1": 0.2, "v2": 0.2, "v3": 0.5}
    chance = np.random.default_rng(1).random(users)
    rows = []
    for user, number, draw in zip(USERS, arm.tolist(), chance.tolist()):
        of = arms(rollout)[number]
        bought = int(draw < rates[of.version])
        row = sample("sessions", user_id=user, arm=of.name, model_version=of.version, started_at=now_ms,
                     ended_at=now_ms + 1, purchases=bought, revenue=10.0 * bought)  # fmt: skip
        rows.append(asdict(row))
    return rows


def test_reallocate_shows_the_arms_and_gives_new_shares_once_for_each_split(shop, tmp_path):
    path = tmp_path / "sessions.jsonl"
    path.write_text("\n".join(map(json.dumps, records(shop))))
    out = shop.do("reallocate", "--sessions", str(path))
    assert "challenger  v3  conversion_rate +" in out
    assert "bandit on conversion_rate, at least 10% for each arm, new shares every 1 ms" in out
    assert shop.shares["v3"] > 0.5
    assert shop.shares["v2"] >= 0.1
    assert shop.entry.command == ("reallocate", "--sessions", str(path))
    assert shop.rollout.challenger_salt == f"bandit-{shop.entry.number}"
    shop.do("ramp", "v3", "--to-champion")
    assert (shop.rollout.champion, list(shop.shares)) == ("v3", ["v2"])


def test_reallocate_is_refused_before_its_time_and_ramp_always(shop, tmp_path):
    shop.apply(bandit={"floor": 0.1, "every": "1 d"})
    assert shop.refused("reallocate", "--sessions", str(tmp_path)).startswith("the shares hold for 1 d at least")
    assert "the bandit gives v2 its share" in shop.refused("ramp", "v2")
    shop.apply(bandit=None)
    assert "the rollout has no bandit" in shop.refused("reallocate", "--sessions", str(tmp_path))


def test_a_bandit_of_the_file_is_checked(shop):
    path = shop.write(bandit={"floor": 0.6})
    assert "key bandit.floor: Expected `float` <= 0.5, got 0.6" in shop.refused("apply", path)
    path = shop.write(bandit={"floor": 0.4})
    assert "key bandit.floor: 3 arms can have at most 0.3333 each (got 0.4)" in shop.refused("apply", path)


def test_the_regular_look_reallocates_when_it_is_time(shop, tmp_path):
    registry = Registry(str(shop.registry))
    settings = load_retraining(RETRAINING_FILE, [f"registry={shop.registry}"])
    topic = records(shop)

    def look(at: datetime) -> str | None:
        return reallocate_regularly(
            registry, settings, KPIS, at, lambda *_: (json.dumps(row).encode() for row in topic)
        )

    shop.apply(bandit={"floor": 0.1, "every": "1 d"})
    assert look(datetime.now(UTC)) is None
    assert look(datetime.now(UTC) + timedelta(days=1, seconds=1)).startswith("bandit: v1 best with")
    assert shop.shares["v3"] > 0.5
    assert (shop.entry.by, shop.entry.command) == ("retrain", ("reallocate",))
    topic.clear()
    assert "the shares stay as they are: no data" in look(datetime.now(UTC) + timedelta(days=2))
    shop.apply(bandit=None)
    assert look(datetime.now(UTC) + timedelta(days=3)) is None


def test_a_challenger_of_retraining_is_not_ramped_beside_a_bandit(policy: Policy):  # noqa: F811
    registry = policy.registry
    append(registry, next_entry(registry), start(replace(registry.newest().rollout, bandit=Bandit()), "v2", None, 0.5),
           by="me", command=("start",), why="a test")  # fmt: skip
    policy.sessions(0.9)
    assert policy.after(hours=48) is None
    assert registry.newest().rollout.bandit is not None
    assert policy.acts == []
