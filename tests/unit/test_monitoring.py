"""Rules, dashboard and runbook fit each other; promtool, part of Prometheus, runs the rules on made-up series."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.support.monitoring import (
    DASHBOARD,
    PROMETHEUS,
    RULES,
    alerts,
    all_rules,
    dashboard_queries,
    metric_names,
    recorded,
)

PROJECT = Path(__file__).parents[2]
MINUTES = 60
JOB = 'job_name="score_clicks"'
ACCEPTED = f'intent_event_to_decode_ms_bucket{{{JOB},le="+Inf"}}'
REJECTED = f'intent_rejected{{{JOB},topic="clicks",reason="invalid_json"}}'
SCORED = f"intent_scored{{{JOB}}}"
DUPLICATES = f"intent_duplicates{{{JOB}}}"
#: Series of a job that is well: values by the minute, for an hour.
WELL = {
    'up{job="flink",instance="jobmanager:9249"}': "1x60",
    "flink_jobmanager_numRunningJobs": "1x60",
    f"flink_jobmanager_job_numRestarts{{{JOB}}}": "0x60",
    f"flink_jobmanager_job_numberOfFailedCheckpoints{{{JOB}}}": "0x47 2 4 5x10",
    f"flink_jobmanager_job_lastCheckpointCompletedTimestamp{{{JOB}}}": "0+60000x60",
    f"flink_taskmanager_job_task_operator_pendingRecords{{{JOB}}}": "50x60",
    f"flink_taskmanager_job_task_operator_KafkaSourceReader_KafkaConsumer_records_consumed_total{{{JOB}}}": "0+6000x60",
    f"flink_taskmanager_job_task_operator_numLateRecordsDropped{{{JOB}}}": "0x60",
    ACCEPTED: "0+6000x60",
    SCORED: "0+6000x60",
    DUPLICATES: "0+1000x60",
    f'intent_event_to_score_ms_bucket{{{JOB},le="50"}}': "0+5000x60",
    f'intent_event_to_score_ms_bucket{{{JOB},le="+Inf"}}': "0+6000x60",
    f"intent_event_to_score_ms_over_budget{{{JOB}}}": "0+10x60",
    REJECTED: "0+10x60",
    f'intent_ledger_entry{{{JOB},subtask_index="0"}}': "7x60",
    f'intent_ledger_entry{{{JOB},subtask_index="1"}}': "6x3 7x57",
    f"intent_models_refused{{{JOB}}}": "1x60",
    f'intent_model{{{JOB},version="v7"}}': "1x60",
    f'intent_model_created_seconds{{{JOB},version="v7"}}': "0x60",
    f"intent_population_age_seconds{{{JOB}}}": "1200x60",
    f"intent_population_tables_refused{{{JOB}}}": "1x60",
    f"intent_shadow_batches_missed{{{JOB}}}": "0x60",
    f"intent_remote_fallbacks{{{JOB}}}": "0x60",
    f"intent_drift_level{{{JOB}}}": "0x30 2x9 1x21",
}
OVER = f"intent_event_to_score_ms_over_budget{{{JOB}}}"
PENDING = f"flink_taskmanager_job_task_operator_pendingRecords{{{JOB}}}"
#: For each alert what has to be otherwise; None is a series that is not there. The clock of promtool begins at 1970.
ILL = {
    "FlinkProcessDown": {'up{job="flink",instance="jobmanager:9249"}': "1x50 0x10"},
    "NoJobRunning": {"flink_jobmanager_numRunningJobs": None},
    "JobRestarts": {f"flink_jobmanager_job_numRestarts{{{JOB}}}": "0x50 1 2 3 4 4 4 4 4 4 4"},
    "CheckpointsFail": {f"flink_jobmanager_job_numberOfFailedCheckpoints{{{JOB}}}": "0x40 1+1x20"},
    "CheckpointOld": {f"flink_jobmanager_job_lastCheckpointCompletedTimestamp{{{JOB}}}": "0+60000x40 2400000x20"},
    "ConsumerLag": {PENDING: "20000x60"},
    "LateRecords": {f"flink_taskmanager_job_task_operator_numLateRecordsDropped{{{JOB}}}": "0+100x60"},
    "NoClicks": {ACCEPTED: "0+6000x10 60000x50", REJECTED: "0+10x10 100x50"},
    "NothingScored": {SCORED: None},
    "DeadLetters": {REJECTED: "0+100x60"},
    "DeadLettersMany": {REJECTED: "0+2000x60"},
    "Duplicates": {DUPLICATES: "0+2000x60"},
    "LatencyBudget": {OVER: "0+100x60"},
    "LatencyBudgetMissed": {OVER: "0+2000x60"},
    "LedgerDiffers": {f'intent_ledger_entry{{{JOB},subtask_index="1"}}': "6x60"},
    "ModelRefused": {f"intent_models_refused{{{JOB}}}": "0+6x60"},
    "ModelOld": {f'intent_model_created_seconds{{{JOB},version="v7"}}': "-3000000x60"},
    "PopulationOld": {f"intent_population_age_seconds{{{JOB}}}": "-1x60"},
    "PopulationRefused": {f"intent_population_tables_refused{{{JOB}}}": "0+6x60"},
    "ShadowsMissed": {f"intent_shadow_batches_missed{{{JOB}}}": "0+60x60"},
    "RemoteFallbacks": {f"intent_remote_fallbacks{{{JOB}}}": "0+100x60"},
    "Drift": {f"intent_drift_level{{{JOB}}}": "1x30 2x30"},
}
#: Alerts that come along, because they say the same with more weight or less.
ALONG = {"DeadLettersMany": {"DeadLetters"}, "LatencyBudgetMissed": {"LatencyBudget"}}


@pytest.fixture(scope="module")
def promtool():
    """Runs promtool, and fails with what it says."""
    if shutil.which("promtool") is None and "CI" not in os.environ:
        pytest.skip("promtool is not here: apt-get install prometheus")

    def run(*arguments: str) -> None:
        ran = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stdout + ran.stderr

    return run


def scenario(name: str, changed: dict[str, str | None], expected: set[str]) -> dict:
    """A test of promtool: at the end of the hour, the alerts that fire are the expected ones."""
    series = {key: values for key, values in (WELL | changed).items() if values is not None}
    return {
        "name": name,
        "interval": "1m",
        "input_series": [{"series": key, "values": values} for key, values in series.items()],
        "promql_expr_test": [
            {
                "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
                "eval_time": f"{MINUTES - 1}m",
                "exp_samples": [{"labels": f'{{alertname="{alert}"}}', "value": 1} for alert in sorted(expected)],
            }
        ],
    }


def test_promtool_accepts_rules_and_configuration(promtool):
    promtool("check", "rules", *map(str, RULES))
    promtool("check", "config", str(PROMETHEUS))


@pytest.mark.slow
def test_each_alert_fires_when_it_should_and_none_does_while_all_is_well(promtool, tmp_path):
    tests = [scenario("all is well", {}, set())]
    none_scored = {SCORED: "0+6000x10 60000x50", DUPLICATES: "0+1000x10 10000x50"}
    none_accepted = none_scored | {ACCEPTED: "0+6000x10 60000x50", REJECTED: "0+10x10 100+6000x49"}
    tests += [scenario("every click is rejected", none_accepted, {"DeadLetters", "DeadLettersMany", "NothingScored"})]
    all_sent_before = none_scored | {DUPLICATES: "0+1000x10 10000+6000x49"}
    left_out = {f'intent_rejected{{{JOB},topic="clicks",reason="ignored"}}': "0+3000x60"}
    tests += [scenario("a mapping leaves out a third of the records", left_out, set())]
    timed_out = {f"flink_jobmanager_job_numberOfFailedCheckpoints{{{JOB}}}": "0x29 1x5 2x5 3x5 4x5 5x5"}
    tests += [scenario("each checkpoint takes longer than its five minutes", timed_out, {"CheckpointsFail"})]
    tests += [scenario("every click was sent before", all_sent_before, {"Duplicates", "NothingScored"})]
    sent_again = {DUPLICATES: "0+1000x48 48000+6000x11"}
    tests += [scenario("half of the events are sent again, for ten minutes so far", sent_again, set())]
    tests += [scenario(alert, changed, {alert} | ALONG.get(alert, set())) for alert, changed in ILL.items()]
    file = tmp_path / "rules.test.yml"
    file.write_text(yaml.safe_dump({"rule_files": [str(rules) for rules in RULES], "tests": tests}))
    promtool("test", "rules", str(file))


def test_each_alert_has_a_case_above():
    assert {alert["alert"] for alert in alerts()} == ILL.keys()


def test_each_alert_says_what_is_wrong_and_links_to_its_entry_in_the_runbook():
    headings = re.findall(r"^### (\w+)$", (PROJECT / "docs" / "runbook.md").read_text(), re.MULTILINE)
    assert len(headings) == len(set(headings))
    for alert in alerts():
        assert alert["annotations"]["summary"]
        assert alert["labels"]["severity"] in ("page", "ticket")
        assert alert["annotations"]["runbook"] == f"docs/runbook.md#{alert['alert'].lower()}"
        assert alert["alert"] in headings
    assert len(headings) == len(alerts())


def test_the_job_s_metrics_are_named_as_operations_md_documents_them():
    documented = set(re.findall(r"`(?:\w+\.)?(\w+)", (PROJECT / "docs" / "operations.md").read_text()))
    for query in [*dashboard_queries(), *(rule["expr"] for rule in all_rules())]:
        for name in metric_names(query):
            if name.startswith("intent_"):
                assert re.sub("_sum$", "_bucket", name.removeprefix("intent_")) in documented, name


def test_the_dashboard_reads_only_recorded_and_exported_metrics_and_each_panel_says_what_it_shows():
    dashboard = json.loads(DASHBOARD.read_text())
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    assert all(panel["title"] and panel["description"] and panel["targets"] for panel in panels)
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    for query in dashboard_queries():
        names = metric_names(query)
        assert names
        assert {name for name in names if ":" in name} <= recorded()


def test_panels_do_not_lie_on_each_other():
    taken = set()
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert max(x for x, _ in cells) < 24
        assert not cells & taken, panel["title"]
        taken |= cells
