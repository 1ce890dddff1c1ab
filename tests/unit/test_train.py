import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from training.dataset import arrange, read_clicks
from training.simulate import Simulation, simulate
from training.train import PARTS, Training, TrainingError, main, simulated_data, split_users, train_model
from udfs.model import Bundle, Scorer, load_bundle
from udfs.scores import in_sample

QUICK = Training(rounds=15, max_depth=3, threads=1)


@pytest.fixture(scope="module")
def stream():
    return simulate(Simulation(users=1_500, seed=4))


@pytest.fixture(scope="module")
def data(stream):
    return simulated_data(stream)


@pytest.fixture(scope="module")
def trained(stream, data):
    return train_model(*data, QUICK, stream.propensity, version="v1")


def encode(*clicks: tuple[str, str, int]):
    """Clicks of (user, event name, minute)."""
    records = ({"user_id": user, "event_name": name, "event_time": minute * 60_000} for user, name, minute in clicks)
    return read_clicks(json.dumps(record).encode() for record in records)


def test_the_model_ranks_unseen_users_well_but_not_better_than_is_possible(trained):
    metrics = trained.manifest.metrics
    assert 0.75 < metrics["test_auc"] < metrics["best_possible_test_auc"] + 0.02


def test_the_scores_are_near_the_share_of_buyers(trained, data):
    scorer = Scorer(Bundle(trained.manifest, trained.model))
    scores = scorer.predict(arrange(*data).features(scorer.features))
    assert scores.mean() == pytest.approx(trained.manifest.metrics["test_positive_share"], rel=0.5)


def test_equal_settings_and_data_give_equal_models(stream, data, trained):
    again = train_model(*data, QUICK, stream.propensity, version="v1")
    assert again.model == trained.model
    assert again.manifest.metrics == trained.manifest.metrics


def test_another_seed_gives_another_model(data, trained):
    assert train_model(*data, replace(QUICK, seed=2)).model != trained.model


def test_only_the_named_features_are_used(data):
    names = ("cart_adds_30m", "session_events", "event_kind")
    trained = train_model(*data, replace(QUICK, features=names))
    assert trained.manifest.features == names


def test_training_stops_when_the_validation_users_gain_no_more(data):
    trained = train_model(*data, replace(QUICK, rounds=200, patience=2, learning_rate=1.0))
    assert trained.manifest.metrics["rounds"] < 200


def test_progress_is_reported(data):
    lines = []
    train_model(*data, QUICK, report=lines.append)
    assert [line.split()[0] for line in lines] == ["training:", "validation:", "test:", "computed", "round"]


def test_every_user_is_in_one_part_and_the_parts_have_their_shares():
    users = [f"u{number}" for number in range(10_000)]
    parts = split_users(users, seed=1)
    assert np.bincount(parts) / len(users) == pytest.approx(list(PARTS.values()), abs=0.02)


def test_users_that_the_job_samples_for_its_feature_log_are_in_all_parts():
    users = [user for user in (f"u{number}" for number in range(100_000)) if in_sample(user, share=0.05)]
    assert np.bincount(split_users(users, seed=1)) / len(users) == pytest.approx(list(PARTS.values()), abs=0.03)


def test_more_users_move_nobody_to_another_part():
    few, many = split_users(["a", "b", "c"], seed=1), split_users(["x", "c", "b", "a", "y"], seed=1)
    assert few.tolist() == many[[3, 2, 1]].tolist()


def test_the_training_window_is_that_of_the_clicks(trained, stream):
    window = trained.manifest.training_window
    assert stream.events["time_ms"].min() <= window.start.timestamp() * 1000
    assert window.start < window.end
    assert window.end.timestamp() * 1000 <= stream.events["time_ms"].max()


def test_no_clicks_are_an_error():
    with pytest.raises(TrainingError, match="no click to train on: 1 records read were all rejected"):
        train_model(read_clicks([b"{"]))


def test_clicks_too_short_for_the_horizon_are_an_error():
    clicks = encode(("a", "view_item", 0), ("a", "purchase", 20))
    with pytest.raises(TrainingError, match="the clicks span 20 minutes, no label is known before 30: use more hours"):
        train_model(clicks)


def test_clicks_without_purchases_are_an_error():
    clicks = encode(*((f"u{user}", "view_item", minute) for minute in (0, 60) for user in range(50)))
    with pytest.raises(
        TrainingError, match="the training part has 0 positive labels among 3[0-9] events of 3[0-9] users"
    ):
        train_model(clicks)


def test_too_few_users_are_an_error():
    clicks = encode(("a", "view_item", 0), ("a", "view_item", 1), ("a", "purchase", 20), ("a", "view_item", 200))
    with pytest.raises(TrainingError, match="both classes are needed, use more users or more hours"):
        train_model(clicks)


def test_the_command_trains_on_a_simulated_shop_and_writes_a_bundle(tmp_path, capsys):
    arguments = ["--simulate", "--users", "1000", "--rounds", "5", "--threads", "1", "--out", str(tmp_path / "bundle")]
    assert main(arguments) == 0
    bundle = load_bundle(tmp_path / "bundle", history_length=64)
    out = capsys.readouterr().out
    assert f"model {bundle.manifest.version}: " in out
    assert ", best possible 0." in out
    assert out.rstrip().splitlines()[-2].endswith(" users: too few for a reliable AUC")


def write_lines(path: Path, records) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_the_command_trains_on_files_and_tells_of_rejected_records(tmp_path, capsys, stream):
    clicks = write_lines(tmp_path / "clicks.jsonl", [*stream.clicks(), {"user_id": ""}])
    profiles = write_lines(tmp_path / "profiles.jsonl", stream.profiles)
    files = ["--clicks", str(clicks), "--profiles", str(profiles), "--out", str(tmp_path / "bundle")]
    assert main([*files, "--rounds", "3"]) == 0
    output = capsys.readouterr()
    assert output.err == f"train: {clicks}: 1 clicks rejected, as the job would: 1 empty_field\n"
    assert "best possible" not in output.out


def refusal(capsys, *arguments) -> str:
    assert main([str(argument) for argument in arguments]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    return message


def test_the_command_refuses_an_empty_file(tmp_path, capsys):
    empty = write_lines(tmp_path / "empty.jsonl", [])
    assert refusal(capsys, "--clicks", empty, "--out", tmp_path / "bundle") == (
        f"train: {empty}: no clicks in it, want a JSON object on each line\n"
    )


def test_the_command_refuses_a_missing_file(tmp_path, capsys):
    message = refusal(capsys, "--clicks", tmp_path / "none.jsonl", "--out", tmp_path / "bundle")
    assert message == f"train: [Errno 2] No such file or directory: '{tmp_path / 'none.jsonl'}'\n"


def test_the_command_refuses_to_write_over_a_bundle_before_it_trains(tmp_path, capsys):
    message = refusal(capsys, "--simulate", "--out", tmp_path)
    assert message == f"train: {tmp_path}: exists already, a bundle is never written over: name another directory\n"


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--users", 0, "users is 0: want at least 1"),
        ("--rounds", 0, "rounds is 0: want at least 1"),
        ("--threads", 0, "threads is 0: want at least 1"),
        ("--learning-rate", 0, "learning_rate is 0.0: want a number above 0, at most 1"),
        ("--version", "a b", "version is 'a b'"),
    ],
)
def test_the_command_refuses_a_setting_out_of_range(tmp_path, capsys, option, value, message):
    assert message in refusal(capsys, "--simulate", "--users", 50, option, value, "--out", tmp_path / "bundle")
