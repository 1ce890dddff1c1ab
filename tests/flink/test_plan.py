"""What runs where: each operator once, and one shuffle."""

import pytest

from training.promote import main

pytestmark = pytest.mark.flink


def names_of(nodes: list[dict]) -> set[str]:
    return {node["contents"].removesuffix(": Writer") for node in nodes if "Committer" not in node["contents"]}


def test_rows_are_exchanged_once_by_user(explain):
    nodes = explain("job.parallelism=4")
    name_of = {node["id"]: node["contents"] for node in nodes}
    hashed = [
        (name_of[edge["id"]], node["contents"])
        for node in nodes
        for edge in node.get("predecessors", ())
        if edge["ship_strategy"] == "HASH"
    ]
    assert sorted(hashed) == [("decode clicks", "score"), ("decode profiles", "score")]


def test_one_worker_decodes_the_profiles_and_one_a_task_everything_else(explain):
    parallelism = {node["contents"]: node["parallelism"] for node in explain("job.parallelism=4")}
    assert {name for name, count in parallelism.items() if count == 1} == {"Source: read profiles", "decode profiles"}
    assert set(parallelism.values()) == {1, 4}


def test_every_operator_has_an_id_by_which_a_savepoint_knows_it(explain):
    explain("flink.pipeline.auto-generate-uids=false", "clicks.follow_logins=true", "feature_log.user_share=0.1")


def test_the_feature_log_is_written_only_where_it_is_wanted(explain):
    assert "write feature_log" not in names_of(explain())
    assert "write feature_log" in names_of(explain("feature_log.user_share=0.1"))


def test_shadow_scores_are_written_only_where_a_registry_is_followed(explain, bundle_directory, tmp_path):
    uri = str(tmp_path / "registry")
    (tmp_path / "rollout.yaml").write_text("salt: plan\nchampion: test-model\n")
    for command in (["stage", str(bundle_directory)], ["apply", str(tmp_path / "rollout.yaml"), "--why", "a plan"]):
        assert main([*command, "--registry", uri]) == 0
    assert "write shadow_scores" not in names_of(explain())
    assert "write shadow_scores" in names_of(explain(f"model.registry={uri}"))
