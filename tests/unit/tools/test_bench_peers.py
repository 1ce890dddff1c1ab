"""What the peers are started with, and that they score what the bare loop scores."""

from itertools import islice
from pathlib import Path

import msgspec
import pytest

from tests.support.bundles import make_bundle
from tools.bench.bare_loop import PlainScorer, bare_loop_rate
from tools.bench.context import BenchContext
from tools.bench.peers import comparison
from tools.bench.peers.comparison import COMMANDS, PeerRun
from tools.bench.peers.scoring import PeerScorer, UserState, peer_arguments
from tools.bench.rates import BenchError
from training.data.sources import click_records
from training.simulation.clickstream import Simulation, simulate
from udfs.contracts.outputs import Score
from udfs.models.bundle import load_bundle

RUN = PeerRun("127.0.0.1:1", "clicks", "scores", Path("model"), Path("state"), processes=2)


def test_a_click_at_a_time_or_all_at_once_scores_are_those_of_the_bare_loop(tmp_path):
    records = list(islice(click_records(simulate(Simulation(5, 48)).clicks()), 600))
    payloads, times = [value for _, value, _ in records], [time for _, _, time in records]
    payloads[7] = b"{broken"
    bundle = make_bundle(tmp_path, "v1")
    decoded, scored = PlainScorer(load_bundle(bundle, 64)).score(payloads, times)
    scorer, states = PeerScorer(bundle), {}
    clicks = scorer.decode(payloads, times, [(3, row) for row in range(len(payloads))])
    after = []
    for click in clicks:
        states[click.user_id] = state = states.get(click.user_id, UserState()).plus(click)
        assert UserState.of_bytes(state.to_bytes()) == state
        after.append(state)
    assert max(state.events for state in after) > 64
    read = msgspec.json.Decoder(Score).decode
    at_once = [read(json) for json in scorer.score(clicks, after)]
    one_by_one = [read(json) for click, state in zip(clicks, after) for json in scorer.score([click], [state])]
    expected = [row for row in range(len(payloads)) if row != 7]
    for found in (at_once, one_by_one):
        assert [score.score for score in found] == pytest.approx(scored.score.tolist(), abs=1e-6)
        assert [score.source_offset for score in found] == expected
        assert [score.event_id for score in found] == [decoded.event_ids[row] for row in expected]
    assert [score.event_name for score in at_once][:3] == [
        msgspec.json.decode(payload)["event_name"] for payload in payloads[:3]
    ]


def test_nothing_is_scored_of_records_that_are_all_rejected(tmp_path):
    scorer = PeerScorer(make_bundle(tmp_path, "v1"))
    assert scorer.decode([b"{broken"], [0], [(0, 0)]) == []
    assert scorer.score([], []) == []


def test_the_bare_loop_has_a_rate(tmp_path):
    payloads = [value for _, value, _ in islice(click_records(simulate(Simulation(20, 24)).clicks()), 400)]
    assert bare_loop_rate(payloads, load_bundle(make_bundle(tmp_path, "v1"), 64), batch=100, skip=200) > 0


@pytest.mark.parametrize("peer", ["plain", "quix"])
def test_the_processes_of_a_consumer_group_have_a_directory_each(peer):
    commands = COMMANDS[peer](RUN)
    assert [command[1:3] for command in commands] == [["-m", f"tools.bench.peers.{peer}_peer"]] * 2
    parsed = [peer_arguments("x", command[3:]) for command in commands]
    assert [(found.servers, found.clicks, found.scores, found.bundle) for found in parsed] == [
        (RUN.servers, RUN.clicks, RUN.scores, RUN.bundle)
    ] * 2
    assert len({found.state for found in parsed}) == 2


def test_the_processes_of_bytewax_know_each_other(tmp_path, monkeypatch):
    prepared = []
    monkeypatch.setattr(comparison.subprocess, "run", lambda command, **options: prepared.append(command))
    run = PeerRun("127.0.0.1:1", "clicks", "scores", Path("model"), tmp_path, processes=2)
    first, second = COMMANDS["bytewax"](run)
    assert prepared == [[first[0], "-m", "bytewax.recovery", str(tmp_path / "recovery"), "2"]]
    assert first[3] == "tools/bench/peers/bytewax_peer.py:flow('127.0.0.1:1', 'clicks', 'scores', 'model')"
    assert [command[command.index("--process-id") + 1] for command in (first, second)] == ["0", "1"]
    addresses = {command[command.index("--addresses") + 1] for command in (first, second)}
    assert len(addresses) == 1
    assert len({*addresses.pop().split(";")}) == 2


def test_where_peers_are_not_installed_the_part_says_how(tmp_path, monkeypatch):
    monkeypatch.setattr(comparison, "PYTHON", tmp_path / "python")
    with pytest.raises(BenchError, match="make bench PART=peers"):
        comparison.measure(BenchContext(tmp_path))


def test_a_context_of_which_nothing_is_asked_starts_and_writes_nothing(tmp_path):
    context = BenchContext(tmp_path)
    context.stop_cluster()
    context.close()
    assert [*tmp_path.iterdir()] == []
