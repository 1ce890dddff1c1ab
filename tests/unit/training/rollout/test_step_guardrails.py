from pathlib import Path

import pandas as pd
import pytest

from training.rollout.step_guardrails import check_names, data_lines, guarded_kpis
from udfs.measurement.kpis import FIELDS, load_kpis
from udfs.rollout.plan import RolloutError, Step

KPIS_FILE = Path(__file__).parents[4] / "conf" / "kpis.yaml"
KPIS = load_kpis(KPIS_FILE)
STEPS = (
    Step(share=0.01, guardrails={"bounce_rate": 0.1}),
    Step(share=0.5, guardrails={"conversion_rate": 0.02, "bounce_rate": 0.02}),
    Step(share=1.0),
)


def sessions(people: int, bots: int = 0, **counts: int) -> pd.DataFrame:
    """Sessions of people in which nothing is counted but what is given, and sessions of bots in which everything is."""
    nothing = dict.fromkeys(FIELDS, 0) | {"started_at": 0, "ended_at": 0, "is_bot": False}
    rows = [nothing | counts] * people + [dict.fromkeys(nothing, 1)] * bots
    return pd.DataFrame(rows, columns=list(nothing))


def test_kpis_of_all_steps_are_guarded_each_once():
    assert guarded_kpis(STEPS) == ("bounce_rate", "conversion_rate")


def test_names_of_kpis_are_right_and_others_are_refused_with_file_step_and_names():
    check_names(Path("rollout.yaml"), STEPS, KPIS, KPIS_FILE)
    wrong = (*STEPS[:1], Step(share=0.5, guardrails={"conversion": 0.02, "bounce_rate": 0.1, "revenue": 0.05}))
    with pytest.raises(RolloutError) as error:
        check_names(Path("rollout.yaml"), wrong, {"bounce_rate": KPIS["bounce_rate"]}, Path("kpis.yaml"))
    assert str(error.value) == (
        "rollout.yaml: key steps: the step at 0.5 has a guardrail on conversion and revenue, which kpis.yaml does not "
        "define; expected one of bounce_rate"
    )


def test_each_guardrail_without_data_gets_a_line():
    names = ("bounce_rate", "conversion_rate", "revenue_per_session")
    assert data_lines(sessions(7, purchases=1), KPIS, names) == [
        "bounce_rate has no data in 7 sessions (no session has `pages = 1`): leave its guardrail out of the steps, or "
        "every ramp will need --force",
        "revenue_per_session has no data in 7 sessions (no session has `revenue > 0`): leave its guardrail out of the "
        "steps, or every ramp will need --force",
    ]


def test_bots_have_no_data_for_guardrails():
    (line,) = data_lines(sessions(7, bots=3), KPIS, ["bounce_rate"])
    assert line.startswith("bounce_rate has no data in 7 sessions")
    assert data_lines(sessions(7, bots=3, pages=1), KPIS, ["bounce_rate"]) == [
        "the KPIs of all guardrails have data in 7 sessions"
    ]


@pytest.mark.parametrize("bots", [0, 3])
def test_no_sessions_show_nothing(bots):
    (line,) = data_lines(sessions(0, bots), KPIS, ["bounce_rate"])
    assert line == "there are no sessions yet that show whether the KPIs of the guardrails have data"
