"""What the outcome job refuses before it is submitted. tests/flink runs the whole job."""

from pathlib import Path

import pytest

from jobs import measure_outcomes as job

CONF = Path(__file__).parents[3] / "conf" / "local.yaml"


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("bought_in_session", "key outcomes.label: bought_in_session has a session_gap, and this job does not follow"),
        ("purchase within 100 d", "key outcomes.label: the horizon of 100 d and event_time.lateness"),
    ],
)
def test_a_label_that_the_job_cannot_measure_is_refused(label, message):
    with pytest.raises(SystemExit, match=message):
        job.main(["--conf", str(CONF), "--set", f"outcomes.label={label}"])
