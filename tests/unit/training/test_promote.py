import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from tests.support.bundles import CERTIFICATE, files_of, files_of_kind, make_bundle
from tests.support.sample_records import sample_fields
from training.promote import main
from udfs.measurement.kpis import COUNTED
from udfs.measurement.labels import CONVERTED, Label
from udfs.models.bundle import EXPORT_FILE, WARM_UP_FILE, XGBOOST_FILE
from udfs.rollout.plan import Control, Rollout
from udfs.rollout.registry import Entry, Registry, seal, unseal


class Shop:
    """A registry, and the commands of somebody who works with it."""

    def __init__(self, directory: Path, capsys):
        self.directory, self.registry, self._capsys = directory, directory / "registry", capsys

    def begin_once(self, template: Path, begin: Callable[["Shop"], None]) -> "Shop":
        """Begin by copying a template, in which a shop has begun: the first test makes it."""
        if not template.exists():
            template.mkdir()
            begin(Shop(template, self._capsys))
        shutil.copytree(template, self.directory, dirs_exist_ok=True)
        return self

    def run(self, *command: str, registry: str | None = None) -> tuple[int, str, str]:
        arguments = [*command, "--registry", registry or str(self.registry)]
        if command[0] not in ("list", "show", "stage"):
            arguments += ["--why", "a test", "--by", "me"]
        code = main(arguments)
        return code, *self._capsys.readouterr()

    def do(self, *command: str) -> str:
        code, out, err = self.run(*command)
        assert (code, err) == (0, "")
        return out

    def refused(self, *command: str) -> str:
        """The one line that refuses a command, which changes nothing."""
        before = Registry(str(self.registry)).numbers()
        code, out, err = self.run(*command)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert Registry(str(self.registry)).numbers() == before
        return err.removeprefix("promote: ").rstrip().replace(str(self.directory) + "/", "")

    def stage(self, version: str, **bundle) -> None:
        self.do("stage", str(make_bundle(self.directory / "models", version, **bundle)))

    def apply(self, *options: str, **rollout) -> str:
        return self.do("apply", self.write(**rollout), *options)

    def write(self, **rollout) -> str:
        path = self.directory / "rollout.yaml"
        path.write_text(json.dumps(rollout))
        return str(path)

    @property
    def entry(self) -> Entry:
        return Registry(str(self.registry)).newest()

    @property
    def rollout(self) -> Rollout:
        return self.entry.rollout

    @property
    def shares(self) -> dict[str, float]:
        return {part.version: part.share for part in self.rollout.challengers}


@pytest.fixture(scope="module")
def template(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("shop") / "template"


@pytest.fixture
def shop(tmp_path, capsys, template) -> Shop:
    """Two staged models, of which the first one is the champion."""
    return Shop(tmp_path, capsys).begin_once(template, two_models)


def two_models(shop: Shop) -> None:
    shop.stage("v1")
    shop.stage("v2")
    shop.do("start", "v1", "--champion")


# From the first model to the next champion


def test_a_model_goes_from_shadow_to_champion(shop):
    shop.do("shadow", "v2")
    assert shop.rollout.shadows == ("v2",)
    shop.do("start", "v2", "--at-most", "0.5")
    assert (shop.rollout.shadows, shop.shares) == ((), {"v2": 0.01})
    seen = []
    while shop.shares["v2"] < 0.5:
        shop.do("ramp", "v2")
        seen.append(shop.shares["v2"])
    assert seen == [0.05, 0.25, 0.5]
    assert "has 0.5, its at_most" in shop.refused("ramp", "v2")
    shop.do("ramp", "v2", "--to-champion")
    assert (shop.rollout.champion, shop.rollout.challengers) == ("v2", ())


@pytest.mark.parametrize("kind", ["logistic", "blend", "lightgbm"])
def test_a_model_of_another_kind_becomes_champion(shop, kind):
    shop.stage("v3", changes={XGBOOST_FILE: None, **files_of_kind(kind)})
    shop.do("start", "v3", "--at-most", "0.01")
    shop.do("ramp", "v3", "--to-champion")
    assert shop.rollout.champion == "v3"


def test_the_ledger_has_who_what_and_why(shop):
    shop.do("shadow", "v2")
    entry = shop.entry
    assert (entry.number, entry.by, entry.why) == (2, "me", "a test")
    assert entry.command == ("shadow", "v2")


def test_a_ramp_never_goes_above_at_most(shop):
    shop.do("start", "v2", "--share", "0.05", "--at-most", "0.2")
    assert shop.refused("ramp", "v2", "--share", "0.3") == "v2: share 0.3 is above its at_most, 0.2"
    shop.do("ramp", "v2")
    assert shop.shares == {"v2": 0.2}


def test_a_ramp_can_go_to_a_share_outside_the_plan_and_back(shop):
    shop.do("start", "v2", "--at-most", "0.5")
    for share in (0.4, 0.1):
        shop.do("ramp", "v2", "--share", str(share))
        assert shop.shares == {"v2": share}


def test_nobody_becomes_champion_out_of_turn(shop):
    assert shop.refused("ramp", "v2", "--to-champion") == "v2 is not a challenger: there is none; `start` makes one"
    shop.do("start", "v2", "--at-most", "0.5")
    assert "it becomes champion from its at_most, 0.5; `ramp` it there first" in shop.refused(
        "ramp", "v2", "--to-champion"
    )
    assert "the ledger has begun" in shop.refused("start", "v2", "--champion")


def test_challengers_and_shadows_can_be_stopped_and_the_champion_can_not(shop):
    shop.stage("v3")
    shop.do("start", "v2", "--at-most", "0.5")
    shop.do("shadow", "v3")
    shop.do("stop", "v2")
    shop.do("stop", "v3")
    assert shop.rollout.versions == ("v1",)
    assert shop.refused("stop", "v1").startswith("v1 is the champion: another one has to take its place")
    assert shop.refused("stop", "v2") == "v2 does not serve: challengers and shadows are none"


def test_a_version_has_one_role(shop):
    shop.do("start", "v2", "--at-most", "0.5")
    assert shop.refused("shadow", "v2") == "v2 is challenger already"
    assert shop.refused("start", "v1", "--at-most", "0.1") == "v1 is champion already"


def test_two_challengers_may_not_reserve_more_than_there_is(shop):
    shop.stage("v3")
    shop.do("start", "v2", "--at-most", "0.7")
    assert "v3: no room for at_most 0.4: the other at_most leave 0.3" in shop.refused("start", "v3", "--at-most", "0.4")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--share", "0.5", "--at-most", "0.1"],
            "key challengers: v2: share must be at most its at_most, 0.1 (got 0.5)",
        ),
        (["--at-most", "0"], "Expected `float` > 0.0 - at `$.rollout.challengers[0].at_most`"),
    ],
)
def test_shares_that_readers_would_refuse_are_not_written(shop, options, message):
    assert shop.refused("start", "v2", *options) == message


def test_a_registry_without_a_champion_says_how_to_begin(tmp_path, capsys):
    shop = Shop(tmp_path, capsys)
    assert "`intent promote start` makes a champion" in shop.refused("ramp", "v1")


# Rolling back


def test_a_rollback_returns_to_what_served_before(shop):
    shop.do("start", "v2", "--at-most", "0.5")
    before = shop.rollout
    shop.do("ramp", "v2")
    shop.do("rollback")
    assert shop.rollout == before
    assert (shop.entry.number, shop.entry.restores) == (4, 2)


def test_a_second_rollback_goes_one_further_back_and_not_forth_again(shop):
    first = shop.rollout
    shop.do("shadow", "v2")
    shop.do("stop", "v2")
    shop.do("shadow", "v2")
    shop.do("rollback")
    shop.do("rollback")
    assert shop.rollout.shadows == ("v2",)
    shop.do("rollback")
    assert shop.rollout == first
    assert shop.refused("rollback") == "entry 1 is the first one: there is nothing to go back to"


def test_what_was_rolled_back_stays_so_when_a_later_change_is_rolled_back(shop):
    first = shop.rollout
    shop.do("shadow", "v2")
    shop.do("rollback")
    shop.do("start", "v2", "--at-most", "0.5")
    shop.do("rollback")
    assert shop.rollout == first
    assert shop.refused("rollback") == "entry 1 is the first one: there is nothing to go back to"


def test_a_rollback_can_name_the_entry_to_return_to(shop):
    shop.do("start", "v2", "--at-most", "0.5")
    shop.do("rollback")
    shop.do("rollback", "--to", "2")
    assert shop.shares == {"v2": 0.01}
    assert "00000009.json: no such entry" in shop.refused("rollback", "--to", "9")


def test_a_rollback_passes_over_an_entry_that_is_not_whole(shop):
    shop.do("shadow", "v2")
    (shop.registry / "ledger" / "00000003.json").write_text('{"sha256": "')
    assert (
        shop.refused("rollback", "--to", "3")
        == "ledger entry 3 is incomplete; choose one that `intent promote list` shows"
    )
    shop.do("rollback")
    assert (shop.entry.number, shop.entry.restores) == (4, 1)


def test_a_rollback_works_when_the_champions_bundle_is_gone(shop):
    shop.do("start", "v2", "--at-most", "0.5", "--share", "0.5")
    shop.do("ramp", "v2", "--to-champion")
    for path in (shop.registry / "bundles" / "v2").iterdir():
        path.unlink()
    shop.do("rollback", "--to", "1")
    assert shop.rollout.versions == ("v1",)


def test_a_rollback_does_not_bring_back_a_damaged_bundle(shop):
    shop.do("start", "v2", "--at-most", "0.5")
    shop.do("stop", "v2")
    (shop.registry / "bundles" / "v2" / XGBOOST_FILE).write_bytes(b"x")
    assert "bundles/v2/model.ubj: sha256 is" in shop.refused("rollback")


def test_a_rollback_asks_for_no_second_comparison_on_the_holdout(shop):
    shop.stage("worse", auc=0.6)
    shop.do("start", "worse", "--at-most", "0.5", "--force")
    shop.do("stop", "worse")
    shop.do("rollback")
    assert shop.shares == {"worse": 0.01}


# What a model has to show

WARM_UP = json.loads(files_of(1)[WARM_UP_FILE])
OFF = json.dumps(WARM_UP | {"scores": [WARM_UP["scores"][0] + 5e-6, *WARM_UP["scores"][1:]]}).encode()


@pytest.mark.parametrize(
    ("bundle", "message"),
    [
        ({"changes": {EXPORT_FILE: None}}, "v3: model.onnx is missing"),
        ({"export": {}}, "v3: model.onnx has no certificate: train again"),
        ({"export": CERTIFICATE | {"rows": 0.0}}, "v3: model.onnx has no certificate: train again"),
        (
            {"export": CERTIFICATE | {"limit": 1e-3}},
            "v3: model.onnx is certified with difference 1.00e-07 and limit 1.00e-03: the difference must be within "
            "the limit, and the limit must be at most 1e-05",
        ),
        (
            {"export": CERTIFICATE | {"largest_difference": 2e-5}},
            "v3: model.onnx is certified with difference 2.00e-05",
        ),
        ({"changes": {WARM_UP_FILE: None}}, "v3: warm_up.json is missing"),
        ({"changes": {WARM_UP_FILE: OFF}}, "v3: model.ubj scores row 0 of warm_up.json"),
        ({"changes": {EXPORT_FILE: files_of(2)[EXPORT_FILE]}}, "v3: model.onnx scores row"),
        ({"changes": {EXPORT_FILE: b"nothing"}}, "v3: model.onnx is not an ONNX model: "),
    ],
)
def test_a_bundle_that_must_not_serve_is_not_staged(shop, bundle, message):
    directory = make_bundle(shop.directory / "models", "v3", **bundle)
    assert shop.refused("stage", str(directory)).startswith(message)
    assert Registry(str(shop.registry)).versions() == ["v1", "v2"]


def test_a_directory_that_is_no_bundle_is_not_staged(shop):
    assert "bundle directory not found" in shop.refused("stage", str(shop.directory / "none"))


@pytest.mark.parametrize("command", [("shadow", "v2"), ("start", "v2", "--at-most", "0.5")])
def test_a_bundle_that_was_damaged_in_the_registry_does_not_come_to_serve(shop, command):
    (shop.registry / "bundles" / "v2" / XGBOOST_FILE).write_bytes(b"x")
    assert "bundles/v2/model.ubj: sha256 is" in shop.refused(*command)


def test_a_bundle_that_was_damaged_later_gets_no_more_users_and_can_be_stopped(shop):
    shop.do("start", "v2", "--at-most", "0.5")
    (shop.registry / "bundles" / "v2" / "manifest.json").unlink()
    assert "bundles/v2: no such bundle is staged" in shop.refused("ramp", "v2")
    assert "v2: cannot serve: " in shop.do("show")
    shop.do("stop", "v2")


def test_a_version_that_is_not_staged_does_not_serve(shop):
    assert shop.refused("shadow", "v9") == "registry/bundles/v9: no such bundle is staged"


def test_a_model_of_another_history_length_does_not_serve_beside_the_champion(shop):
    shop.stage("v3", history_length=32)
    message = shop.refused("start", "v3", "--at-most", "0.5", "--force")
    assert "history_length is 32, the job keeps 64" in message


# Against the champion


@pytest.mark.parametrize("auc", [0.78, 0.79, 0.9])
def test_a_model_that_chance_does_not_tell_from_the_champion_may_start(shop, auc):
    shop.stage("v3", auc=auc)
    shop.do("start", "v3", "--at-most", "0.5")
    assert not shop.entry.forced


ABANDONED = Label(events=("purchase",), absent=True, horizon="24 h", rows=("add_to_cart",))
WORSE = {
    "metric": (
        {"auc": 0.75},
        "v3: test_roc_auc is 0.7500 but must be at least 0.7800, the lower end of the interval of the champion's ",
    ),
    "no metric": ({"metrics": {}}, "v3: test_roc_auc is nan but must be at least 0.7800"),
    "label": (
        {"label": ABANDONED},
        f'v3 predicts "{ABANDONED}", the champion "{CONVERTED}": no metric compares the two',
    ),
}


@pytest.mark.parametrize(("bundle", "message"), WORSE.values(), ids=WORSE)
def test_a_model_that_does_not_show_to_be_as_good_starts_by_force_alone_which_is_recorded(shop, bundle, message):
    shop.stage("v3", **bundle)
    refusal = shop.refused("start", "v3", "--at-most", "0.5")
    assert refusal.startswith(message)
    assert refusal.endswith("--force overrides this")
    assert f"forced: {message}" in shop.do("start", "v3", "--at-most", "0.5", "--force")
    assert shop.entry.forced
    assert "(forced)" in shop.do("list")


def test_a_worse_model_may_be_a_shadow(shop):
    shop.stage("worse", auc=0.6)
    shop.do("shadow", "worse")
    assert "--force overrides this" in shop.refused("start", "worse", "--at-most", "0.5")


def test_force_overrides_nothing_but_the_metric(shop):
    (shop.registry / "bundles" / "v2" / XGBOOST_FILE).write_bytes(b"x")
    assert "sha256" in shop.refused("start", "v2", "--at-most", "0.5", "--force")


def test_a_model_that_acts_is_not_compared_again(shop):
    shop.stage("worse", auc=0.6)
    shop.do("start", "worse", "--at-most", "0.05", "--force")
    shop.do("ramp", "worse")
    shop.do("ramp", "worse", "--to-champion")
    assert shop.rollout.champion == "worse"


# A file over it


def test_a_file_changes_what_it_names_and_leaves_the_rest(shop):
    shop.do("shadow", "v2")
    shop.apply(control={"share": 0.05, "at_most": 0.1}, rule={"any": ["cart_adds_30m >= 1"]})
    assert shop.rollout.control == Control(share=0.05, at_most=0.1)
    assert shop.rollout.shadows == ("v2",)
    assert "nothing to change: this rollout already serves" in shop.refused("apply", shop.write(shadows=["v2"]))


def test_a_registry_can_begin_with_a_file(tmp_path, capsys):
    shop = Shop(tmp_path, capsys)
    shop.stage("v1")
    assert "key champion: missing" in shop.refused("apply", shop.write(salt="s"))
    shop.apply(salt="s", champion="v1")
    assert shop.rollout == Rollout(salt="s", champion="v1")


@pytest.mark.parametrize("begin", ["start", "apply"])
def test_a_registry_whose_very_first_change_was_half_written_can_still_begin(tmp_path, capsys, begin):
    shop = Shop(tmp_path, capsys)
    shop.stage("v1")
    (shop.registry / "ledger").mkdir()
    (shop.registry / "ledger" / "00000001.json").write_text('{"sha256"')
    if begin == "start":
        shop.do("start", "v1", "--champion")
    else:
        shop.apply(salt="s", champion="v1")
    assert (shop.entry.number, shop.rollout.champion) == (2, "v1")


def test_the_models_of_a_file_have_to_show_the_same(shop):
    shop.stage("worse", auc=0.6)
    assert "no such bundle" in shop.refused("apply", shop.write(champion="v9"))
    challengers = [{"version": "worse", "share": 0.1, "at_most": 0.1}]
    for file in (shop.write(champion="worse"), shop.write(challengers=challengers)):
        assert "worse: test_roc_auc is 0.6000" in shop.refused("apply", file)


KPI = {"formula": "a / b", "numerator": "purchases > 0", "denominator": "sessions", "direction": "up"}
STEPS = [{"share": 0.05}, {"share": 0.5, "guardrails": {"bounce_rate": 0.02, "conversion_rate": 0.02}}]


def test_a_guardrail_on_a_kpi_that_is_not_defined_is_refused(shop):
    steps = [{"share": 0.5, "guardrails": {"conversion": 0.02, "revenue": 0.05}}, {"share": 1.0}]
    refusal = shop.refused("apply", shop.write(steps=steps))
    assert refusal.startswith(
        "rollout.yaml: key steps: the step at 0.5 has a guardrail on conversion and revenue, which conf/kpis.yaml does "
        "not define; expected one of click_through_rate, engagement_rate, conversion_rate, "
    )


def test_the_names_of_guardrails_are_those_of_the_kpis_beside_the_file_or_of_a_file_that_is_named(shop):
    file = shop.write(steps=[{"share": 0.5, "guardrails": {"mine": 0.02}}])
    assert "conf/kpis.yaml does not define" in shop.refused("apply", file)
    (shop.directory / "other.yaml").write_text(json.dumps({"mine": KPI}))
    (shop.directory / "kpis.yaml").write_text(json.dumps({"theirs": KPI}))
    assert "mine, which kpis.yaml does not define; expected one of theirs" in shop.refused("apply", file)
    shop.do("apply", file, "--kpis", str(shop.directory / "other.yaml"))
    assert shop.entry.command == ("apply", file)
    shop.do("rollback")
    (shop.directory / "kpis.yaml").write_text(json.dumps({"mine": KPI}))
    shop.do("apply", file)


def test_without_kpis_guardrails_are_refused_and_a_file_without_them_is_not(shop):
    settings = shop.directory / "none" / "retraining.yaml"
    settings.parent.mkdir()
    settings.touch()
    conf = ("--conf", str(settings))
    refusal = shop.refused("apply", shop.write(steps=STEPS), *conf)
    assert refusal.startswith("rollout.yaml: the steps have guardrails, and kpis.yaml and none/kpis.yaml do not exist")
    assert refusal.endswith("name the file of KPIs with --kpis FILE")
    shop.apply(*conf, steps=[{"share": 0.05}, {"share": 0.5}])


def sessions_of(shop: Shop, **counts) -> str:
    """The path of 40 sessions in which most counts are 0."""
    record = sample_fields("sessions") | dict.fromkeys(COUNTED, 0) | {"pages": 0, "revenue": 0.0}
    path = shop.directory / "sessions.jsonl"
    path.write_text("".join(json.dumps(record | {"user_id": f"u{user}"} | counts) + "\n" for user in range(40)))
    return str(path)


def test_a_guardrail_whose_kpi_has_no_data_is_named_and_the_file_applied(shop):
    file = shop.write(steps=STEPS)
    out = shop.do("apply", file, "--sessions", sessions_of(shop, purchases=1))
    assert out.splitlines()[:2] == [
        "bounce_rate has no data in 40 sessions (no session has `pages = 1`): leave its guardrail out of the steps, or "
        "every ramp will need --force",
        "ledger entry 2 is now active",
    ]
    assert "--sessions" not in out
    assert shop.entry.command == ("apply", file)


def test_sessions_can_show_that_all_guardrails_have_data(shop):
    out = shop.apply("--sessions", sessions_of(shop, purchases=1, pages=1), steps=STEPS)
    assert out.splitlines()[0] == "the KPIs of all guardrails have data in 40 sessions"


def test_sessions_are_read_from_the_topic_as_well(shop, monkeypatch):
    asked = []

    def read(properties, topic, since_ms):
        asked.append((topic, since_ms))
        return []

    monkeypatch.setattr("training.promote.read_topic", read)
    out = shop.apply("--sessions", "topic", steps=STEPS)
    assert asked == [("sessions", None)]
    assert out.startswith("there are no sessions yet")


def test_sessions_that_cannot_be_read_refuse_a_file_before_it_is_applied(shop):
    assert "no .jsonl" in shop.refused("apply", shop.write(steps=STEPS), "--sessions", str(shop.directory / "none"))


def test_without_sessions_a_file_with_guardrails_says_how_to_check_their_data(shop):
    advice = "to check whether the KPIs of the guardrails have data, repeat this with --sessions PATH|topic"
    assert shop.apply(steps=STEPS).splitlines()[-1] == advice
    assert advice not in shop.apply(steps=[{"share": 0.05}])


def test_the_users_of_the_next_challenger_are_drawn_afresh(shop):
    shop.do("start", "v2", "--at-most", "0.5")
    assert shop.rollout.challenger_salt == "v2"
    assert "salt rollout, of challengers v2; steps" in shop.do("show")
    shop.do("stop", "v2")
    shop.stage("v3")
    shop.apply(challengers=[{"version": "v3", "share": 0.1, "at_most": 0.5}])
    assert shop.rollout.challenger_salt == "v3"
    assert "drawn afresh" not in shop.do("stop", "v3")


def test_a_challenger_beside_another_one_may_get_users_of_an_earlier_one_which_is_said(shop):
    assert "drawn afresh" not in shop.do("start", "v2", "--at-most", "0.5")
    shop.stage("v3")
    assert shop.do("start", "v3", "--at-most", "0.5").splitlines()[-1] == (
        "users are drawn afresh only when no other challenger runs: v3, beside v2, may get users who had an earlier "
        "challenger"
    )


def test_a_file_does_not_deal_the_users_of_a_running_challenger_anew(shop):
    shop.do("start", "v2", "--at-most", "0.5")
    assert shop.refused("apply", shop.write(salt="other")).startswith("salt other would reassign the users of v2")
    moved = [{"version": "v2", "share": 0.1, "at_most": 0.5, "start": 0.5}]
    assert shop.refused("apply", shop.write(challengers=moved)).startswith("start 0.5 would give v2 other users")
    assert shop.refused("apply", shop.write(challenger_salt="w")).startswith("challenger_salt w would reassign")
    shop.do("stop", "v2")
    shop.apply(salt="other")


# Reading and writing


def test_show_tells_shares_metrics_and_what_comes_next(shop):
    shop.apply(
        control={"share": 0.05, "at_most": 0.05},
        rule={"any": ["cart_adds_30m >= 1"]},
        steps=[{"share": 0.01, "guardrails": {"conversion_rate": 0.02}}, {"share": 0.2}],
    )
    shop.do("start", "v2", "--at-most", "0.5")
    shown = shop.do("show")
    assert "champion     94.00%  v1" in shown
    assert "control       5.00%  rule-based, no model; maximum share 5%" in shown
    assert "challenger    1.00%  v2; maximum share 50%, next step 20%" in shown
    assert "guardrails, maximum loss against the champion: conversion_rate 2.0%" in shown
    assert f"v2: AUC 0.8000 (0.7800 to 0.8200); {CONVERTED}" in shown


def test_list_shows_bundles_and_entries_whole_or_not(shop):
    shop.do("shadow", "v2")
    path = shop.registry / "ledger" / "00000002.json"
    (shop.registry / "ledger" / "00000003.json").write_bytes(path.read_bytes()[:-30])
    newer = json.loads(unseal(path.read_bytes())) | {"format": 2}
    (shop.registry / "ledger" / "00000004.json").write_bytes(seal(msgspec.json.encode(newer)))
    lines = shop.do("list").splitlines()
    assert lines[0].startswith("v1: AUC 0.8000")
    assert "me: shadow v2: a test" in lines[4]
    assert lines[5] == "3  incomplete, skipped"
    assert "format is 2, this code reads 1" in lines[6]


def test_an_empty_registry_can_be_listed(tmp_path, capsys):
    out = Shop(tmp_path, capsys).do("list")
    assert "no bundles are staged" in out
    assert "the ledger is empty" in out


def test_it_works_on_another_file_system(tmp_path, capsys):
    shop = Shop(tmp_path, capsys)
    uri = "memory://promoted"
    directory = str(make_bundle(tmp_path, "v1"))
    assert shop.run("stage", directory, registry=uri) == (0, "v1: staged\n", "")
    assert shop.run("stage", directory, registry=uri) == (0, "v1: already staged\n", "")
    assert shop.run("start", "v1", "--champion", registry=uri)[0] == 0
    assert Registry(uri).rollout()[1].champion == "v1"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["stop", "v1"], "--why"),
        (["stop", "v1", "--why", " "], "expected a reason, got an empty text"),
        (["start", "v1", "--why", "x"], "Either --at-most or --champion is required"),
        (["start", "v1", "--why", "x", "--at-most", "1", "--champion"], "--at-most and --champion can't be combined"),
        (["start", "v1", "--why", "x", "--share", "0.1", "--champion"], "--share and --champion can't be combined"),
        (["ramp", "v1", "--why", "x", "--share", "0", "--to-champion"], "--share and --to-champion can't be combined"),
        (["start", "v1", "--why", "x", "--at-most", "2"], "expected a number from 0 to 1, got 2"),
        (["start", "v1", "--why", "x", "--at-most", "all"], "expected a number from 0 to 1, got all"),
    ],
)
def test_a_command_that_lacks_something_is_refused(shop, capsys, arguments, message):
    assert main([*arguments, "--registry", str(shop.registry)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"promote {arguments[0]}: ")
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.slow
def test_the_command_starts_without_the_libraries_that_train():
    program = "import sys, training.promote; print({'lightgbm', 'onnx', 'optuna', 'sklearn'} & set(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout == "set()\n"
