import re

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace
from scipy.special import logit
from threadpoolctl import threadpool_limits

from tests.conftest import QUICK
from tests.support.bundles import files_of
from tests.support.shop import FEW, SOME, shop_clicks, shop_examples
from tools.paths import PROJECT
from training.bundles.trainer import train_model
from training.data.examples import Examples
from training.data.split import SplitError, split_by_time, split_by_user, user_folds
from training.modeling.calibration import Calibration
from training.modeling.distillation import distilled_labels
from training.modeling.families import FAMILIES
from training.modeling.family import FitRows, Fitting
from training.modeling.gru_model import INSTALL
from training.modeling.onnx_export import ExportError, certify
from training.modeling.settings import TrainingError, load_training
from training.reporting.facts import Background, gather
from training.reporting.recommendation import AlarmKind, ShipDecision, find_alarms, read_recommendation, recommend
from training.reporting.recommendation_text import recommendation_text
from training.reporting.report import STRONGEST, metrics_json, report_html
from training.reporting.serving_cost import saving
from udfs.features.declaration_file import STANDARD
from udfs.measurement.drift import JUDGED_ROWS, REFERENCE_FILE, Reference
from udfs.measurement.labels import CONVERTED
from udfs.models.backends import OnnxScorer, Scorer
from udfs.models.bundle import EXPORT_FILE, WARM_UP_FILE, Bundle

NAMES = ("value", "session_duration_s", "cart_adds_30m", "checkouts_30m")
OF_FEW = replace(QUICK, features=FEW)


@pytest.fixture(scope="module")
def examples():
    return shop_examples()


@pytest.fixture(scope="module")
def trained(examples):
    settings = replace(QUICK, compare=("logistic", "lightgbm"))
    return train_model(examples, settings, propensity=shop_clicks().propensity[examples.offset], version="v1")


@pytest.fixture(scope="module")
def facts(trained):
    return gather(trained, Background(("a simulated shop",), ("clicks.csv: 3 <duplicate> records",)))


@pytest.fixture(scope="module")
def page(facts):
    return report_html(facts).decode()


@pytest.fixture(scope="module")
def told(facts):
    return msgspec.json.decode(metrics_json(facts))


@pytest.fixture(scope="module")
def of_few(examples):
    """A model of few features, trained with two threads."""
    with threadpool_limits(2):
        return train_model(examples, replace(OF_FEW, compare=("logistic",)), version="v1")


def with_features(examples: Examples, features: np.ndarray) -> Examples:
    return Examples(**{**vars(examples), "features": features})


@pytest.mark.slow
def test_the_model_ranks_unseen_users_well_but_not_better_than_is_possible(trained):
    metrics = trained.manifest.metrics
    assert 0.75 < metrics["test_roc_auc"] < metrics["best_possible_test_auc"] + 0.02
    assert metrics["test_roc_auc_low"] < metrics["test_roc_auc"] < metrics["test_roc_auc_high"]


@pytest.mark.slow
def test_scores_are_probabilities_on_average(trained):
    found = trained.evaluation.metrics
    assert found["mean_probability"].value == pytest.approx(found["positive_rate"].value, rel=0.4)


@pytest.mark.slow
def test_equal_settings_and_data_give_equal_files_whatever_the_threads_of_the_machine(examples, of_few):
    with threadpool_limits(1):
        again = train_model(examples, replace(OF_FEW, compare=("logistic",)), version="v1")
    assert again.files == of_few.files
    assert metrics_json(gather(again)) == metrics_json(gather(of_few))


@pytest.mark.slow
def test_another_seed_gives_another_model(examples, of_few):
    assert train_model(examples, replace(OF_FEW, seed=OF_FEW.seed + 1)).model != of_few.model


@pytest.mark.slow
@pytest.mark.usefixtures("without_plots")
def test_the_served_model_is_fitted_to_all_users_and_its_metrics_are_from_before(examples, of_few):
    trained, kept = of_few, train_model(examples, replace(OF_FEW, refit="training"), version="v1")
    assert kept.measured is None
    assert trained.measured.model == kept.model != trained.model
    metrics = trained.manifest.metrics
    assert metrics == trained.measured.manifest.metrics
    assert metrics == kept.manifest.metrics
    assert trained.manifest.rows["refit"] == len(examples) == sum(kept.manifest.rows.values())
    assert trained.manifest.training_window.end > trained.measured.manifest.training_window.start
    assert (trained.evaluation.probability == kept.evaluation.probability).all()
    assert f"then fitted to all\n{len(examples)} events" in report_html(gather(trained)).decode()
    assert "then fitted to all" not in report_html(gather(kept)).decode()


@pytest.mark.slow
def test_reference_and_warm_up_rows_of_a_refitted_model_are_its_own(examples, trained):
    bundle = Bundle(trained.manifest, trained.model)
    warm_up = msgspec.json.decode(trained.files[WARM_UP_FILE])
    rows = np.array(warm_up["rows"], np.float32)
    assert Scorer(bundle).predict(rows) == pytest.approx(warm_up["scores"], abs=1e-6)
    reference = msgspec.json.decode(trained.files[REFERENCE_FILE], type=Reference)
    assert {one.rows for one in reference.features.values()} == {len(examples)}
    assert reference.score.rows == trained.manifest.rows["holdout"]


@pytest.mark.slow
def test_of_a_split_by_time_all_events_are_refitted(examples):
    last = int(np.quantile(examples.time_ms, 0.7))
    found = train_model(examples, OF_FEW, holdout_from_ms=last)
    assert found.manifest.training_window.end.timestamp() * 1_000 == pytest.approx(examples.time_ms.max(), abs=1_000)
    assert found.measured.manifest.training_window.end.timestamp() * 1_000 < last
    assert found.manifest.rows["refit"] > found.manifest.rows["training"] + found.manifest.rows["holdout"]


@pytest.mark.slow
@pytest.mark.usefixtures("without_plots")
def test_the_whole_training_is_measured_on_new_users_and_reported(examples):
    settings = replace(QUICK, model="auto", repeats=1, folds=2, rounds=5, compare=("logistic",), features=NAMES)
    found = train_model(examples, settings)
    repeated = found.evaluation.repeated
    gain = repeated.differences["logistic"]["roc_auc"]
    metrics = found.manifest.metrics
    assert metrics["repeated_roc_auc_minus_logistic"] == gain.value
    assert metrics["repeated_roc_auc_low"] <= metrics["repeated_roc_auc"] <= metrics["repeated_roc_auc_high"]
    facts = gather(found)
    page, told = report_html(facts).decode(), msgspec.json.decode(metrics_json(facts))
    assert "New users: the training as a whole" in page
    assert f"{repeated.cost.models} models" in page
    assert told["repeated"]["differences"]["logistic"]["roc_auc"]["value"] == gain.value
    assert [one["family"] for one in told["choice"]["candidates"] if one["chosen"]] == [found.evaluation.model]


@pytest.mark.slow
def test_what_is_not_measured_is_no_data(trained, page, told):
    assert "No data: `repeats` is 0." in page
    assert "repeated_roc_auc" not in trained.manifest.metrics
    assert told["repeated"] is None


@pytest.mark.slow
def test_pruning_leaves_out_features_and_hardly_loses(examples):
    pruned = train_model(examples, replace(QUICK, features=SOME, prune=True))
    assert len(pruned.manifest.features) < len(SOME)
    accepted = [step for step in pruned.evaluation.pruning if step.accepted]
    assert min(step.features for step in accepted) == len(pruned.manifest.features)
    kept, unpruned = re.findall(r"([\d.]+) µs for features .*? \((\d+) features, \d+ trees\)", saving(pruned))
    assert [int(kept[1]), int(unpruned[1])] == [len(pruned.manifest.features), len(SOME)]
    assert min(float(kept[0]), float(unpruned[0])) > 0


@pytest.mark.slow
def test_a_model_of_all_features_has_no_saving_to_tell(trained):
    assert saving(trained) is None


@pytest.mark.slow
def test_a_monotone_feature_never_lowers_the_score(examples):
    settings = replace(OF_FEW, monotone={"cart_adds_30m": "up"})
    model = train_model(examples, settings)
    scorer = Scorer(Bundle(model.manifest, model.model))
    rows = np.repeat(examples.features[:200, None, STANDARD.find(FEW)], 6, 1)
    rows[:, :, FEW.index("cart_adds_30m")] = np.arange(6)
    scores = scorer.predict(rows.reshape(-1, len(FEW))).reshape(200, 6)
    assert (np.diff(scores, axis=1) >= 0).all()


def few_rows(examples: Examples) -> FitRows:
    return FitRows(examples.features[:, STANDARD.find(FEW)], examples.labels, examples.weight)


def distillation(examples: Examples, share: float) -> tuple[FitRows, Fitting]:
    parameters = {**FAMILIES["xgboost"].defaults, "teacher_share": share}
    return few_rows(examples), Fitting(FEW, parameters, rounds=200, threads=1)


def test_distilled_labels_mix_the_labels_with_the_predictions_of_logistic_regression(examples):
    rows, half = distillation(examples, 0.5)
    _, all_of_it = distillation(examples, 1.0)
    _, none = distillation(examples, 0.0)
    teacher = FAMILIES["logistic"].fit(rows, Fitting(FEW, FAMILIES["logistic"].defaults))
    predictions = teacher.predict(rows.features)
    assert distilled_labels(rows, all_of_it) == pytest.approx(predictions)
    assert distilled_labels(rows, half) == pytest.approx((rows.labels + predictions) / 2)
    assert (distilled_labels(rows, none) == rows.labels).all()


@pytest.mark.slow
def test_the_more_it_is_distilled_the_nearer_the_model_comes_to_logistic_regression(examples):
    rows, _ = distillation(examples, 0.0)
    teacher = FAMILIES["logistic"].fit(rows, Fitting(FEW, FAMILIES["logistic"].defaults))
    predictions = teacher.predict(rows.features)
    apart = []
    for share in (0.0, 0.5, 1.0):
        model = FAMILIES["xgboost"].fit(*distillation(examples, share))
        apart.append(np.abs(model.predict(rows.features) - predictions).mean())
    assert apart[0] > apart[1] > apart[2]


@pytest.mark.slow
def test_the_search_stays_within_its_bounds_and_is_reported(examples):
    lines = []
    found = train_model(examples, replace(OF_FEW, trials=2, rounds=5), log=lines.append)
    assert sum("trial" in line for line in lines) == 3
    assert 2 <= found.evaluation.parameters["max_depth"] <= 6


def test_every_user_is_on_one_side_of_each_split(examples):
    rows, holdout = split_by_user(examples, 0.2, seed=1)
    assert not set(examples.user[rows]) & set(examples.user[holdout])
    assert len(rows) + len(holdout) == len(examples)
    fold = user_folds(examples, rows, 5, seed=1)
    per_user = {(user, number) for user, number in zip(examples.user[rows].tolist(), fold.tolist())}
    assert len(per_user) == len({user for user, _ in per_user})


@pytest.mark.slow
def test_no_training_label_reaches_into_a_holdout_by_time(examples):
    rows, holdout = split_by_time(examples, 0.2, CONVERTED.horizon_ms)
    assert examples.time_ms[rows].max() + CONVERTED.horizon_ms < examples.time_ms[holdout].min()
    assert train_model(examples, replace(OF_FEW, holdout="time")).manifest.metrics["test_roc_auc"] > 0.7


@pytest.mark.slow
def test_examples_without_positives_are_an_error(examples):
    none = Examples(**{**vars(examples), "labels": np.zeros(len(examples), bool)})
    with pytest.raises(SplitError, match="has 0 positive labels among .* both classes are needed"):
        train_model(none, QUICK)


@pytest.mark.slow
def test_a_fold_with_one_class_is_an_error(examples):
    few = examples.user < 6
    labels = examples.labels[few] & (examples.user[few] == 0)
    labels[np.flatnonzero(examples.user[few] == 0)[:1]] = True
    some = Examples(**{**vars(examples.take(np.flatnonzero(few))), "labels": labels})
    with pytest.raises(SplitError, match="too few for|both classes are needed"):
        train_model(some, QUICK)


@pytest.mark.slow
def test_features_without_information_are_named_and_do_no_harm(examples):
    features = examples.features.copy()
    useless = STANDARD.find(FEW[:2])
    features[:, useless] = np.nan, 7
    found = train_model(with_features(examples, features), OF_FEW)
    assert set(FEW[:2]) <= set(found.evaluation.unused)


@pytest.mark.slow
def test_what_drift_monitoring_cannot_watch_is_told_in_a_line_and_named_in_the_report(examples, trained, page, told):
    lines = []
    buyers = np.isin(examples.user, np.unique(examples.user[examples.labels])[:12])
    found = train_model(examples.take(np.flatnonzero(buyers)), OF_FEW, log=lines.append)
    reference = msgspec.json.decode(found.files[REFERENCE_FILE], type=Reference)
    few = [name for name, known in reference.distributions.items() if known.independent_rows < JUDGED_ROWS]
    assert "country" in few
    assert len(few) < len(reference.distributions)
    line = f"features without drift monitoring: {len(few)} ({', '.join(few[:3])}"
    assert sum(one.startswith(line) for one in lines) == 1
    facts = gather(found)
    assert msgspec.json.decode(metrics_json(facts))["unwatched"] == few
    assert f"independent rows of them: {', '.join(few)}." in report_html(facts).decode()
    assert not trained.unwatched
    assert not told["unwatched"]
    assert "drift monitoring" not in page


@pytest.mark.slow
def test_a_feature_that_knows_the_label_raises_an_alarm(examples, trained):
    features = examples.features.copy()
    features[:, STANDARD.find(FEW[:1])[0]] = examples.labels
    leaking = train_model(with_features(examples, features), replace(OF_FEW, parameters={"colsample_bynode": 1.0}))
    found = recommend(leaking)
    assert found.decision == ShipDecision.DO_NOT_SHIP
    assert [(alarm.kind, alarm.feature) for alarm in found.alarms] == [
        (AlarmKind.IMPLAUSIBLE_AUC, None),
        (AlarmKind.SINGLE_FEATURE, FEW[0]),
    ]
    assert not find_alarms(trained.evaluation)


@pytest.mark.slow
def test_the_export_scores_what_the_job_scores_and_its_certificate_says_so(trained, examples):
    scorer, runtime = Scorer(Bundle(trained.manifest, trained.model)), OnnxScorer(trained.files[EXPORT_FILE])
    largest = np.abs(scorer.predict(examples.features) - runtime.predict(examples.features)).max()
    assert largest <= trained.manifest.export["limit"]
    assert trained.manifest.export["largest_difference"] <= trained.manifest.export["limit"]


@pytest.mark.slow
def test_an_export_of_another_model_is_refused(trained, examples):
    other = files_of(1, STANDARD.names)
    mine = Scorer(Bundle(trained.manifest, trained.model))
    with pytest.raises(ExportError, match="differ from the model's by up to"):
        certify(mine.predict, other[EXPORT_FILE], examples.features[:500], [()] * len(STANDARD.names))


@pytest.mark.parametrize("kind", [kind for kind in FAMILIES if kind != "gru"])  # that one: tests/unit/udfs/models
def test_a_calibration_folded_into_the_model_is_the_calibration(examples, kind):
    calibration = Calibration(0.7, -0.4)
    train = few_rows(examples)
    plain = FAMILIES[kind].fit(train, Fitting(FEW, FAMILIES[kind].defaults, rounds=10, threads=1))
    rows = train.features[:1_000]
    folded = plain.calibrated(calibration)
    assert folded.predict(rows) == pytest.approx(calibration(plain.predict(rows)), abs=1e-6)
    added = folded.contributions(rows).sum(axis=1)
    assert added == pytest.approx(logit(folded.predict(rows)), abs=1e-4)


@pytest.mark.slow
def test_the_report_stands_alone_and_opens_with_the_recommendation(trained, page):
    found = recommend(trained)
    assert recommendation_text(found) in page.replace("&#39;", "'")
    assert page.index(f'<p class="recommendation {found.decision}">') < page.index("<table>")
    assert not re.search(r'(src|href|action)="(?!#|data:)', page)  # offline
    assert "@import" not in page
    for heading in ("Compared with", "Data", "Limits", "Threshold explorer", "Thresholds", "Gain and lift", "Features",
                    "Performance by day", "Learning curve", "Most confident mistakes", "Provenance"):  # fmt: skip
        assert f">{heading}</h" in page
    assert "clicks.csv: 3 &lt;duplicate&gt; records" in page


@pytest.mark.slow
def test_every_link_of_the_report_leads_somewhere_and_no_id_is_given_twice(page):
    ids = re.findall(r'<(?!path|clipPath)[a-zA-Z0-9]+ [^>]*?\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids)) > 10
    assert set(re.findall(r'href="#([a-z-]+)"', page)) <= set(ids)


@pytest.mark.slow
def test_the_report_draws_every_plot(page):
    drawn = re.findall(r'aria-label="([^"]+)"', page)
    for title in ("ROC curve", "Precision and recall", "Gain", "Lift", "Calibration", "Scores by outcome",
                  "Learning curve", "Permutation importance", "AUC by day", "Contributions"):  # fmt: skip
        assert title in drawn
    assert sum(name in drawn for name in STANDARD.names) == STRONGEST
    assert page.count("logistic regression, held-out users") == 1
    assert len(page) < 600_000


@pytest.mark.slow
def test_the_learning_curve_has_intervals_and_the_line_of_the_regression(trained):
    curve = trained.evaluation.learning_curve
    assert list(curve.points) == ["xgboost", "logistic"]
    for points in curve.points.values():
        assert [point.share for point in points] == [0.25, 0.5, 1.0]
        assert [point.rows for point in points] == sorted(point.rows for point in points)
        assert all(point.held_out.low < point.held_out.value < point.held_out.high for point in points)
        assert points[-1].seen > points[-1].held_out.value
    gain = curve.last_doubling
    half, whole = (point.held_out.value for point in curve.points["xgboost"][1:])
    assert gain.value == pytest.approx(whole - half)
    assert gain.low < gain.value < gain.high


@pytest.mark.slow
def test_a_figure_that_rounds_to_zero_has_no_minus(page):
    assert not re.search(r">[−-]0\.?0*[ <%]", page)


@pytest.mark.slow
def test_metrics_have_the_recommendation_as_data_and_as_text(trained, facts, tmp_path):
    path = tmp_path / "metrics.json"
    path.write_bytes(metrics_json(facts))
    assert read_recommendation(path) == recommend(trained)
    assert msgspec.json.decode(path.read_bytes())["recommendation_text"] == recommendation_text(recommend(trained))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("folds=1", "Expected `int` >= 2 - at `$.folds`"),
        ("fold=3", "unknown field `fold`"),
        ("features=[nothing]", "unknown feature 'nothing'"),
        ("monotone={nothing: up}", "unknown feature 'nothing'"),
        ("parameters={depth: 3}", "key parameters: unknown parameter depth; expected one of C, max_depth"),
        ("folds", "--set folds: expected KEY=VALUE"),
        ("model=forest", "Invalid enum value 'forest' - at `$.model`"),
        ("model=xgboost compare=[xgboost]", "key compare: xgboost is the model itself: name other kinds"),
        ("repeats=21", "Expected `int` <= 20 - at `$.repeats`"),
        ("refit=holdout", "Invalid enum value 'holdout' - at `$.refit`"),
        ("model=xgboost compare=[gru]", "settings: a sequence model (gru) needs PyTorch: pip install '"),
        ("sequence=true", "settings: a sequence model (gru) needs PyTorch: pip install 'torch>=2.4,<3'"),
    ],
)
def test_a_setting_that_breaks_a_rule_is_refused_by_name(override, message, monkeypatch):
    monkeypatch.setattr("training.modeling.settings.is_torch_installed", lambda: False)
    with pytest.raises(TrainingError) as error:
        load_training(None, override.split(" ", 1) if "compare" in override else [override])
    assert message in str(error.value)


def test_pytorch_is_installed_in_the_versions_of_the_extra():
    (required,) = re.findall(r'^SEQUENCE = \["(.+)"\]$', (PROJECT / "setup.py").read_text(), re.MULTILINE)
    assert f"pip install '{required}'" == INSTALL


def test_with_pytorch_a_sequence_model_adds_the_codes_of_events(monkeypatch):
    monkeypatch.setattr("training.modeling.settings.is_torch_installed", lambda: True)
    with pytest.raises(TrainingError, match="key sequence: it adds a candidate to model: auto \\(got xgboost\\)"):
        load_training(None, ["model=xgboost", "sequence=true"])
    with pytest.raises(
        TrainingError, match="key parameters: hidden must be a whole number from 1 to 256 \\(got 2.5\\)"
    ):
        load_training(None, ["model=gru", "parameters={hidden: 2.5}"])
    names = load_training(None, ["model=gru", "history_length=100"]).names
    assert names[: len(STANDARD.names)] == STANDARD.names
    assert names[len(STANDARD.names) :] == tuple(f"event_code_{back}" for back in reversed(range(64)))


@pytest.mark.parametrize(
    ("kind", "parameters", "rule"),
    [
        ("blend", "{trees_weight: 1.5}", "trees_weight must be from 0 to 1 (got 1.5)"),
        ("blend", "{trees_weight: .nan}", "trees_weight must be from 0 to 1 (got nan)"),
        ("logistic", "{C: 0}", "C must be above 0 (got 0)"),
        ("blend", "{C: .inf}", "C must be above 0 (got inf)"),
        ("logistic", "{trees_weight: 0.5}", "unknown parameter trees_weight; expected one of C"),
        ("xgboost", "{max_depth: 2.5}", "max_depth must be a whole number from 1 to 32 (got 2.5)"),
        ("lightgbm", "{bagging_fraction: 0}", "bagging_fraction must be above 0 and at most 1 (got 0)"),
    ],
)
def test_a_parameter_that_breaks_a_rule_is_refused_by_name(kind, parameters, rule):
    with pytest.raises(TrainingError) as error:
        load_training(None, [f"model={kind}", "compare=[]", f"parameters={parameters}"])
    assert str(error.value) == f"settings: key parameters: {rule}"
