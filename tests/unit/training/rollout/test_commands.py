"""Changes of the rollout as objects: the command line of each, and the service that executes them."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.bundles import make_bundle
from training import promote
from training.rollout import transitions
from training.rollout.admission import HoldoutError
from training.rollout.commands import AddShadow, Apply, Change, First, MakeChampion, Ramp, Rollback, Start, Stop
from training.rollout.guardrails import GuardrailError
from training.rollout.ledger import LostRace, upload_bundle
from training.rollout.service import RolloutService
from training.rollout.transitions import ChangeError
from udfs.models.bundle import directory_files
from udfs.rollout.plan import Step
from udfs.rollout.registry import Registry, RegistryError

versions = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)
shares = st.floats(0, 1)
CHANGES = st.one_of(
    st.builds(First, versions),
    st.builds(Apply, versions.map(Path)),
    st.builds(AddShadow, versions),
    st.builds(Start, versions, shares, st.none() | shares),
    st.builds(Ramp, versions, st.none() | shares),
    st.builds(MakeChampion, versions),
    st.builds(Stop, versions),
    st.builds(Rollback, st.none() | st.integers(1, 10**8)),
)


@pytest.mark.slow
@given(CHANGES)
def test_the_command_of_a_change_makes_this_change(change):
    executed = []

    def execute(service, change, **options):
        executed.append(change)
        raise ChangeError("this test only looks at the change")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(RolloutService, "execute", execute)
        patched.setattr(promote, "load_steps", lambda file: ())
        assert promote.main([*change.command, "--registry", "memory://none", "--why", "w"]) == 2
    assert executed == [change]


@pytest.mark.parametrize(
    ("change", "command"),
    [
        (First("v1"), "start v1 --champion"),
        (Start("v2", 0.5), "start v2 --at-most 0.5"),
        (Start("v2", 1.0, 0.123456789), "start v2 --at-most 1 --share 0.123456789"),
        (Ramp("v2"), "ramp v2"),
        (MakeChampion("v2"), "ramp v2 --to-champion"),
        (Rollback(), "rollback"),
    ],
)
def test_commands_are_those_that_earlier_entries_have(change, command):
    assert " ".join(change.command) == command


def test_changes_are_pure_functions_of_the_rollout():
    rollout = First("v1").apply(None)
    assert rollout == transitions.first("v1")
    seen = [rollout]
    for change in (AddShadow("v2"), Start("v2", 0.05), Ramp("v2"), MakeChampion("v2")):
        rollout = change.apply(seen[-1])
        assert rollout == change.apply(seen[-1]) != seen[-1]
        seen.append(rollout)
    assert rollout.versions == ("v2",)
    with pytest.raises(ChangeError, match="the ledger has begun"):
        First("v3").apply(rollout)


@pytest.fixture
def service(tmp_path) -> RolloutService:
    """On a registry of two bundles, v1 the champion, and a third one that is worse."""
    registry = Registry(str(tmp_path / "registry"))
    for version, auc in (("v1", 0.8), ("v2", 0.8), ("worse", 0.6)):
        directory = make_bundle(tmp_path / "models", version, auc=auc)
        upload_bundle(registry, directory_files(directory))
    service = RolloutService(registry)
    execute(service, First("v1"))
    return service


def execute(service: RolloutService, change: Change, **options) -> tuple:
    return service.execute(change, by="me", why="a test", **options)


def test_an_entry_has_the_change_and_what_it_was_made_with(service):
    entry, overridden = execute(service, AddShadow("v2"), options=("--force",))
    assert (entry.number, entry.by, entry.why, overridden) == (2, "me", "a test", [])
    assert entry.command == ("shadow", "v2", "--force")
    assert entry.rollout.shadows == ("v2",)


def test_a_change_since_the_snapshot_is_noticed(service):
    snapshot = service.snapshot()
    execute(service, AddShadow("v2"))
    with pytest.raises(LostRace):
        execute(service, AddShadow("v2"), snapshot=snapshot)


def test_a_snapshot_takes_the_number_before_it_reads_what_serves(service, monkeypatch):
    newest = Registry.newest

    def somebody_else_is_faster(registry: Registry):
        monkeypatch.setattr(Registry, "newest", newest)
        execute(RolloutService(Registry(registry.uri)), AddShadow("worse"))
        return newest(registry)

    monkeypatch.setattr(Registry, "newest", somebody_else_is_faster)
    with pytest.raises(LostRace):
        execute(service, AddShadow("v2"))


def test_a_ledger_begins_with_a_champion(tmp_path):
    service = RolloutService(Registry(str(tmp_path / "registry")))
    assert service.snapshot(may_be_empty=True).rollout is None
    for change in (AddShadow("v1"), Rollback()):
        with pytest.raises(RegistryError, match="makes a champion"):
            execute(service, change)


def test_objections_are_raised_or_overridden(service):
    change = Start("worse", 0.5)
    with pytest.raises(HoldoutError, match="worse: test_roc_auc is 0.6000") as error:
        execute(service, change)
    entry, overridden = execute(service, change, force=True)
    assert (entry.forced, overridden) == (True, [str(error.value)])


def test_a_challenger_grows_only_with_evidence_where_its_step_has_guardrails(service, tmp_path):
    steps = [Step(share=0.1, guardrails={"conversion_rate": 0.02}), Step(share=0.3)]
    (tmp_path / "rollout.yaml").write_text(
        f"steps: {[{'share': step.share, 'guardrails': step.guardrails} for step in steps]}"
    )
    execute(service, Apply(tmp_path / "rollout.yaml"))
    execute(service, Start("v2", 0.1))
    with pytest.raises(GuardrailError, match="the step at 0.1 has guardrails"):
        execute(service, MakeChampion("v2"))
    execute(service, Ramp("v2", 0.05))
    entry, overridden = execute(service, Ramp("v2"))  # below the first step there are none
    assert (entry.rollout.challengers[0].share, overridden) == (0.1, [])
