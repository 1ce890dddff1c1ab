"""What the demo counts of the records that come back."""

from tests.support.sample_records import sample
from tools.demo.outcome import DemoOutcome
from udfs.contracts.outputs import to_json


def test_scores_and_dead_letters_are_told_apart_by_their_topic():
    outcome = DemoOutcome("rejected")
    outcome.received("scores", to_json(sample("scores", event_id="e1", score=0.5)), 1.0)
    outcome.received("scores", to_json(sample("scores", event_id="e2", score=0.25)), 2.0)
    outcome.received("rejected", to_json(sample("dead_letters", reason="too_deep")), 3.0)
    assert outcome.scores == {"e1": 0.5, "e2": 0.25}
    assert outcome.dead_letters == {"too_deep": 1}
    assert outcome.answered == 3
