import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from scipy.stats import binomtest, chi2_contingency, chisquare

from udfs.features.declaration_file import STANDARD
from udfs.rollout.assignment import CHAMPION, CONTROL, NOT_ELIGIBLE, arms, assign, eligible_rows, positions
from udfs.rollout.plan import (
    Challenger,
    Control,
    Rollout,
    RolloutError,
    add_challenger,
    check_rollout,
    check_rules,
    load_rollout,
    load_rule,
    load_steps,
    rollout_features,
)
from udfs.rollout.rules import Rule

USERS = [f"user-{number}" for number in range(20_000)]
RULE = Rule(any=("cart_adds_30m >= 1",))
EXAMPLE = Path(__file__).parents[4] / "conf" / "rollout.yaml"
P_VALUE = 1e-4  # the users are fixed: a test fails always or never


def rollout(**fields) -> Rollout:
    return Rollout(**{"salt": "s", "champion": "champion-1", "rule": RULE, **fields})


def challenger(version: str, share: float, at_most: float, start: float | None = None) -> Challenger:
    return Challenger(version=version, share=share, at_most=at_most, start=start)


def assigned(rollout: Rollout, users: list[str] = USERS) -> np.ndarray:
    return assign(rollout, users, np.ones(len(users), bool))


# Where users fall


@pytest.mark.parametrize("salt", ["", "s", "checkout-2026"])
def test_users_fall_evenly_over_the_line(salt):
    counts = np.histogram(positions(salt, USERS), 100, (0, 1))[0]
    assert counts.sum() == len(USERS)
    assert chisquare(counts).pvalue > P_VALUE


@pytest.mark.parametrize("other", ["t", "s0", "S", "s-s"])
def test_where_a_user_falls_under_one_salt_says_nothing_of_another(other):
    tenths = [np.floor(positions(salt, USERS) * 10).astype(int) for salt in ("s", other)]
    table = np.bincount(tenths[0] * 10 + tenths[1], minlength=100).reshape(10, 10)
    assert chi2_contingency(table).pvalue > P_VALUE


def test_numbers_in_user_ids_leave_no_pattern():
    place = positions("s", USERS)
    pairs = np.floor(place[:-1] * 10).astype(int) * 10 + np.floor(place[1:] * 10).astype(int)
    assert chisquare(np.bincount(pairs, minlength=100)).pvalue > P_VALUE


@given(st.text(st.characters(codec="utf-8"), min_size=1), st.lists(st.text(st.characters(codec="utf-8"))))
def test_a_users_place_depends_on_salt_and_user_alone(user, company):
    alone = positions("s", [user])[0]
    assert 0 <= alone < 1
    assert positions("s", [*company, user])[-1] == alone


def test_salt_and_user_are_told_apart():
    assert positions("a", ["bc"])[0] != positions("ab", ["c"])[0]


def test_no_users_have_no_arms():
    assert assigned(rollout(), []).shape == (0,)


# Arms


def test_arms_get_their_shares():
    mixed = rollout(
        control=Control(share=0.05, at_most=0.1),
        challengers=(challenger("a", 0.2, 0.5, 0.1), challenger("b", 0.01, 0.3, 0.6)),
    )
    arm = assigned(mixed)
    for number, share in ((CHAMPION, 0.74), (CONTROL, 0.05), (CONTROL + 1, 0.2), (CONTROL + 2, 0.01)):
        assert binomtest(int((arm == number).sum()), len(USERS), share).pvalue > P_VALUE


def test_an_arm_names_the_model_whose_score_counts():
    named = arms(rollout(challengers=(challenger("a", 0.2, 0.5, 0.0),)))
    assert [(arm.name, arm.version) for arm in named] == [
        ("champion", "champion-1"),
        ("not_eligible", "champion-1"),
        ("control", "champion-1"),
        ("challenger", "a"),
    ]


def test_a_share_of_one_is_everybody_and_a_share_of_none_nobody():
    assert set(assigned(rollout(challengers=(challenger("a", 1, 1, 0.0),)))) == {CONTROL + 1}
    assert set(assigned(rollout(challengers=(challenger("a", 0, 1, 0.0),)))) == {CHAMPION}


shares = st.floats(0, 1)


@st.composite
def rollouts(draw) -> Rollout:
    """Control and up to three challengers, somewhere on their ramps."""
    found = rollout(control=Control(share=0, at_most=draw(st.floats(0, 0.2))))
    for version in draw(st.permutations("abc"))[: draw(st.integers(0, 3))]:
        found = add_challenger(found, challenger(version, 0, draw(st.floats(0.001, 0.25))))
    return at_shares(found, draw(st.lists(shares, min_size=4, max_size=4)))


def at_shares(found: Rollout, of_at_most: list[float]) -> Rollout:
    control, *others = (part.at_most * of for part, of in zip((found.control, *found.challengers), of_at_most))
    return replace(
        found,
        control=replace(found.control, share=control),
        challengers=tuple(replace(part, share=share) for part, share in zip(found.challengers, others)),
    )


@given(rollouts(), st.lists(shares, min_size=4, max_size=4))
def test_a_user_keeps_their_arm_while_shares_grow(before, growth):
    parts = (before.control, *before.challengers)
    reached = [part.share / part.at_most if part.at_most else 0 for part in parts]
    after = at_shares(before, [max(one, other) for one, other in zip(reached, growth)])
    old, new = assigned(before, USERS[:500]), assigned(after, USERS[:500])
    assert (new[old != CHAMPION] == old[old != CHAMPION]).all()


@given(rollouts(), st.floats(0.001, 0.05))
def test_another_challenger_takes_users_from_the_champion_alone(before, at_most):
    after = add_challenger(before, challenger("d", at_most, at_most))
    check_rollout(after)
    old, new = assigned(before, USERS[:500]), assigned(after, USERS[:500])
    assert (new[old != CHAMPION] == old[old != CHAMPION]).all()


@given(rollouts(), st.data())
def test_a_challenger_that_leaves_moves_its_own_users_to_the_champion_alone(before, data):
    if not before.challengers:
        return
    gone = data.draw(st.sampled_from(before.challengers))
    after = replace(before, challengers=tuple(part for part in before.challengers if part is not gone))
    old = np.array([arms(before)[arm][:2] for arm in assigned(before, USERS[:500])])
    new = np.array([arms(after)[arm][:2] for arm in assigned(after, USERS[:500])])
    stays = old[:, 1] != gone.version
    assert (new[stays] == old[stays]).all()
    assert (new[~stays, 0] == "champion").all()


def test_the_region_that_a_challenger_left_is_given_again():
    full = add_challenger(add_challenger(rollout(), challenger("a", 0, 0.5)), challenger("b", 0, 0.5))
    assert [part.start for part in full.challengers] == [0, 0.5]
    again = add_challenger(replace(full, challengers=full.challengers[1:]), challenger("c", 0, 0.4))
    assert again.challengers[-1].start == 0


def test_a_challenger_without_room_is_refused():
    full = add_challenger(rollout(control=Control(at_most=0.3)), challenger("a", 0, 0.5))
    with pytest.raises(RolloutError, match="b: no room for at_most 0.3: the other at_most leave 0.2"):
        add_challenger(full, challenger("b", 0, 0.3))


# Eligibility and the rule


def test_who_is_not_eligible_gets_the_champion_and_is_no_part_of_the_comparison():
    everybody = rollout(challengers=(challenger("a", 1, 1, 0.0),))
    eligible = np.arange(len(USERS)) % 2 == 0
    arm = assign(everybody, USERS, eligible)
    assert (arm[eligible] == CONTROL + 1).all()
    assert (arm[~eligible] == NOT_ELIGIBLE).all()
    assert arms(everybody)[NOT_ELIGIBLE].version == everybody.champion


def test_eligibility_is_what_the_rule_says_of_the_features():
    features = np.array([[2, 1], [1, 1], [2, 0]], np.float32)
    returning = rollout(eligible=Rule(all=("device == mobile", "first_visit == 0")))
    assert eligible_rows(returning, ("device", "first_visit"), features, STANDARD).tolist() == [False, False, True]
    assert eligible_rows(rollout(), ("device", "first_visit"), features, STANDARD).all()


def test_a_rollout_tells_the_features_that_its_rules_need():
    needs = rollout(eligible=Rule(all=("device == mobile", "country == DE")), rule=Rule(any=("device == tablet",)))
    assert rollout_features(needs) == ("device", "country")


# Reading


def written(tmp_path: Path, **content) -> Path:
    path = tmp_path / "rollout.yaml"
    path.write_text(yaml.safe_dump({"salt": "s", "champion": "champion-1", **content}))
    return path


def test_the_example_is_valid_as_soon_as_it_names_a_champion(tmp_path):
    path = tmp_path / "rollout.yaml"
    path.write_text(EXAMPLE.read_text().replace("# champion:", "champion:"))
    read = load_rollout(path)
    assert read.control.share > 0
    assert [step.share for step in read.steps] == [0.01, 0.05, 0.25, 0.5, 1.0]
    assert load_rule(EXAMPLE) == read.rule


def test_the_challengers_of_the_example_are_valid_too(tmp_path):
    lines = EXAMPLE.read_text().replace("# champion:", "champion:").splitlines()
    start = lines.index("# challengers:")
    lines[start : start + 4] = [line.removeprefix("# ") for line in lines[start : start + 4]]
    path = tmp_path / "rollout.yaml"
    path.write_text("\n".join(lines))
    (only,) = load_rollout(path).challengers
    assert (only.share, only.at_most, only.start) == (0.05, 0.5, 0.05)


def test_json_is_read_as_well(tmp_path):
    path = tmp_path / "rollout.json"
    path.write_text('{"salt": "s", "champion": "champion-1"}')
    assert load_rollout(path) == rollout(rule=None)


def test_what_a_file_leaves_out_stays_as_it_is(tmp_path):
    under = rollout(shadows=("b",), control=Control(share=0.1, at_most=0.1))
    path = tmp_path / "rollout.yaml"
    path.write_text("salt: other")
    assert load_rollout(path, under) == replace(under, salt="other")


def test_a_challenger_keeps_its_region_when_a_file_names_it_again(tmp_path):
    under = rollout(challengers=(challenger("a", 0.1, 0.2, 0.7),))
    parts = [{"version": "b", "share": 0, "at_most": 0.1}, {"version": "a", "share": 0.2, "at_most": 0.2}]
    read = load_rollout(written(tmp_path, challengers=parts), under)
    assert {part.version: part.start for part in read.challengers} == {"a": 0.7, "b": 0}


def of(*versions: str) -> list[dict]:
    """Challengers as a file lists them."""
    return [{"version": version, "share": 0.1, "at_most": 0.2} for version in versions]


NAMED = rollout(challenger_salt="old", challengers=(challenger("a", 0.1, 0.2, 0.0), challenger("b", 0.1, 0.2, 0.2)))


@pytest.mark.parametrize(
    ("under", "content", "salt"),
    [
        (None, {"challengers": of("a", "b")}, "a"),
        (None, {"challengers": of("a"), "challenger_salt": "mine"}, "mine"),
        (None, {}, None),
        (rollout(), {"challengers": of("a", "b")}, "a"),
        (rollout(challenger_salt="old"), {"challengers": of("a")}, "a"),
        (rollout(challenger_salt="old"), {"challengers": of("a"), "challenger_salt": "old"}, "old"),
        (rollout(challenger_salt="old"), {"challengers": of("a"), "challenger_salt": None}, None),
        (NAMED, {"challengers": of("c")}, "c"),
        (NAMED, {"challengers": of("c", "b")}, "old"),
        (NAMED, {"challengers": []}, "old"),
        (NAMED, {}, "old"),
        (replace(NAMED, challenger_salt=None), {"challengers": of("a", "c")}, None),
    ],
)
def test_a_file_draws_users_afresh_where_no_challenger_goes_on(tmp_path, under, content, salt):
    assert load_rollout(written(tmp_path, **content), under).challenger_salt == salt


def test_the_steps_of_a_file_can_be_read_alone(tmp_path):
    assert load_steps(written(tmp_path)) == ()
    (only,) = load_steps(written(tmp_path, steps=[{"share": 0.5, "guardrails": {"revenue": 0.05}}]))
    assert (only.share, only.guardrails) == (0.5, {"revenue": 0.05})
    path = written(tmp_path, steps=[{"share": 0.5}, {"share": 2}])
    for load in (load_steps, load_rollout):
        with pytest.raises(RolloutError) as caught:
            load(path)
        assert str(caught.value) == f"{path}: key steps[1].share: Expected `float` <= 1.0, got 2"


def control(share: float, at_most: float) -> dict:
    return {"control": {"share": share, "at_most": at_most}, "rule": {"any": ["value > 1"]}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"champion": 1}, "key champion: Expected `str`, got `int`, got 1"),
        ({"control": {"share": 2}}, "key control.share: Expected `float` <= 1.0, got 2"),
        ({"shares": 1}, "key shares: unknown key"),
        ({"challengers": [{"share": 0.1, "at_most": 1}]}, "key challengers[0].version: missing"),
        ({"rule": {"some": []}}, "key rule.some: unknown key"),
        ({"steps": []}, "key steps: Expected `array` of length >= 1"),
        ({"steps": [{"share": 0.5}, {"share": 0.1}]}, "key steps: shares must increase with each step, got 0.5, 0.1"),
        ({"shadows": ["champion-1"]}, "key champion, challengers, shadows: champion-1 is listed twice; "),
        (control(0.2, 0.1), "key control: share must be at most its at_most, 0.1 (got 0.2)"),
        (control(0.1, 0.1) | {"rule": None}, "key rule: missing; it decides in control, which has at_most above 0"),
        (
            {"challengers": [{"version": "a", "share": 0.3, "at_most": 0.2, "start": 0}]},
            "key challengers: a: share must be at most its at_most, 0.2 (got 0.3)",
        ),
        (
            control(0, 0.5) | {"challengers": [{"version": "a", "share": 0, "at_most": 0.6, "start": 0.5}]},
            "key control, challengers: the sum of at_most must be at most 1 (got 1.1)",
        ),
        (
            control(0, 0.5) | {"challengers": [{"version": "a", "share": 0, "at_most": 0.2, "start": 0.4}]},
            "key control, challengers: the region of control ends at 0.5, that of a"
            " starts at 0.4: they must not overlap",
        ),
        (
            {"challengers": [{"version": "a", "share": 0, "at_most": 0.2, "start": 0.9}]},
            "key control, challengers: the region of a must end at 1 or below (got 1.1)",
        ),
        ({"rule": {"all": ["value"]}}, "key rule: condition 'value': expected FEATURE OPERATOR VALUE"),
    ],
)
def test_a_rollout_that_breaks_a_rule_is_refused_by_file_key_rule_and_value(tmp_path, content, message):
    path = written(tmp_path, **content)
    with pytest.raises(RolloutError) as caught:
        load_rollout(path)
    assert str(caught.value).startswith(f"{path}: {message}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["", "- a", "a: [", "\x00"])
def test_a_file_that_is_no_rollout_is_refused_by_name(tmp_path, content):
    path = tmp_path / "rollout.yaml"
    path.write_text(content)
    with pytest.raises(RolloutError) as caught:
        load_rollout(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_refused_by_name(tmp_path):
    with pytest.raises(RolloutError, match=r"none\.yaml: cannot be read"):
        load_rule(tmp_path / "none.yaml")


def test_a_file_without_a_rule_has_no_baseline(tmp_path):
    with pytest.raises(RolloutError, match=r"rollout\.yaml: key rule: missing"):
        load_rule(written(tmp_path))


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"rule": {"all": ["valu > 1"]}}, "key rule: condition 'valu > 1': unknown feature valu; "),
        ({"eligible": {"all": ["session_events > 3"]}}, "key eligible: session_events changes as a user clicks; "),
    ],
)
def test_a_rule_about_other_features_than_the_champion_has_is_refused(tmp_path, rules, message):
    with pytest.raises(RolloutError, match=re.escape(message)):
        check_rules(load_rollout(written(tmp_path, **rules)), STANDARD)


def test_eligibility_may_look_at_country_tier_device_and_whether_a_user_is_new():
    rule = Rule(all=("country in [DE, FR]", "membership_tier >= silver", "device == mobile", "first_visit == 1"))
    check_rules(rollout(eligible=rule), STANDARD)
