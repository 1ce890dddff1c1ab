"""The planner decides what runs: each Python call once, and one shuffle."""

import re

import pytest

from training.promote import main

pytestmark = pytest.mark.flink


@pytest.mark.parametrize("overrides", [(), ("feature_log.user_share=0.1",)], ids=["scores", "scores and feature log"])
def test_each_python_function_is_planned_once_and_rows_are_exchanged_once_by_user(explain, overrides):
    plan = explain(*overrides)
    assert len(re.findall(r"decode_clicks\(", plan)) == 1
    assert len(re.findall(r"decode_profiles\(", plan)) == 1
    assert len(re.findall(r"score_click\(", plan)) == 1
    assert re.findall(r"Exchange\(distribution=\[(.*?)\]\)", plan) == ["hash[user_id]"]
    assert len(re.findall(r"OverAggregate\(", plan)) == 1


def test_the_feature_log_is_planned_only_where_it_is_wanted(explain):
    assert "feature_log" not in explain()
    assert "feature_log" in explain("feature_log.user_share=0.1")


def test_shadow_scores_are_planned_only_where_a_registry_is_followed(explain, bundle_directory, tmp_path):
    uri = str(tmp_path / "registry")
    (tmp_path / "rollout.yaml").write_text("salt: plan\nchampion: test-model\n")
    for command in (["stage", str(bundle_directory)], ["apply", str(tmp_path / "rollout.yaml"), "--why", "a plan"]):
        assert main([*command, "--registry", uri]) == 0
    assert "shadow_scores]" not in explain()
    assert "shadow_scores]" in explain(f"model.registry={uri}")


def test_the_history_has_the_configured_length(explain):
    assert "user_history(event, 64)" in explain()
