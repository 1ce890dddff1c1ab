"""Report and model card state the same facts; periods, segments and mistakes say when, where and about what."""

from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace

from tests.conftest import QUICK
from tests.support.bundles import make_bundle
from tests.support.shop import shop_examples
from training.bundles.trainer import train_model
from training.bundles.writer import write_bundle
from training.evaluation.champion import ChampionComparison, compare_with_champion
from training.modeling.metrics import Estimate
from training.reporting.facts import Background, gather
from training.reporting.model_card import CARD_FILE, model_card
from training.reporting.report import METRICS_FILE, REPORT_FILE, with_report
from training.reporting.segments import Segment, periods
from udfs.features.declaration_file import STANDARD
from udfs.measurement.labels import CONVERTED
from udfs.models.bundle import load_bundle

DAY_MS = 86_400_000
FEATURES = ("value", "session_duration_s", "cart_adds_30m", "checkouts_30m", "first_visit", "device")


@pytest.fixture(scope="module")
def trained():
    return train_model(shop_examples(), replace(QUICK, features=FEATURES, rounds=5), version="v2")


@pytest.fixture(scope="module")
def champion(tmp_path_factory):
    return load_bundle(make_bundle(tmp_path_factory.mktemp("models"), "v1", label=CONVERTED), 64)


@pytest.fixture(scope="module")
def compared(trained, champion) -> ChampionComparison:
    evaluation = trained.evaluation
    return compare_with_champion(evaluation.holdout, evaluation.probability, STANDARD, champion, 2)


@pytest.fixture(scope="module")
def reported(trained, compared):
    return with_report(trained, Background(("a | shop",), ("clicks.csv: a *gap* <b>",), compared))


@pytest.mark.slow
def test_the_champion_is_measured_on_the_same_rows(trained, compared):
    assert (compared.version, compared.rows, compared.fitted_rows) == ("v1", len(trained.evaluation.holdout), 0)
    assert compared.model_metrics["roc_auc"] == trained.evaluation.metrics["roc_auc"]
    gain = compared.model_metrics["roc_auc"].value - compared.champion_metrics["roc_auc"].value
    assert compared.differences["roc_auc"].value == pytest.approx(gain)
    assert set(compared.differences) == set(compared.model_metrics) == set(compared.champion_metrics)


@pytest.mark.slow
def test_report_and_metrics_have_the_champion_side_by_side(reported, compared):
    page = reported.files[REPORT_FILE].decode()
    assert "Side by side with the champion" in page
    assert "<td>The champion v1</td>" in page
    assert page.count("ROC curve") == 4  # caption and label, of the model alone and of both
    told = msgspec.json.decode(reported.files[METRICS_FILE])["champion"]
    assert told["version"] == "v1"
    assert told["differences"]["roc_auc"]["value"] == compared.differences["roc_auc"].value


@pytest.mark.slow
@pytest.mark.usefixtures("without_plots")
def test_a_champion_that_does_not_answer_is_no_data(trained):
    page = with_report(trained, Background(champion="the champion does not answer: no route")).files[REPORT_FILE]
    assert b"<strong>Champion.</strong> No data: the champion does not answer: no route." in page
    assert b"Side by side" not in page


@pytest.mark.slow
def test_the_card_states_the_facts_of_the_report(trained, reported):
    card, page = reported.files[CARD_FILE].decode(), reported.files[REPORT_FILE].decode()
    for heading in ("Intended use", "Model", "Data", "Metrics", "Limits", "Features"):
        assert f"\n## {heading}\n" in card
    auc = trained.evaluation.metrics["roc_auc"]
    assert f"| ROC-AUC on the holdout | {auc.value:.4f} ({auc.low:.4f} to {auc.high:.4f}) |" in card
    assert f"{auc.value:.4f} <small>{auc.low:.4f} to {auc.high:.4f}</small>" in page
    assert all(f"`{name}`" in card for name in FEATURES)
    assert f"{trained.evaluation.rows['holdout']} events of {trained.evaluation.users['holdout']} users" in card
    assert "The champion v1" in card
    assert card.count("\n\n\n") == 0


@pytest.mark.slow
def test_text_of_the_data_can_change_neither_page_nor_card(reported):
    assert "- Data: clicks.csv: a \\*gap\\* \\<b\\>" in reported.files[CARD_FILE].decode()
    assert "a \\| shop" in reported.files[CARD_FILE].decode()
    assert b"clicks.csv: a *gap* &lt;b&gt;" in reported.files[REPORT_FILE]


@pytest.mark.slow
@pytest.mark.usefixtures("without_plots")
def test_where_nobody_looked_for_problems_neither_says_that_there_are_none(trained):
    facts = gather(trained)
    assert "no data on problems" in model_card(facts).decode()
    assert "no data on problems" not in model_card(gather(trained, Background(warnings=()))).decode()


@pytest.mark.slow
def test_a_bundle_is_accepted_with_the_card_and_without_it(trained, reported, tmp_path):
    write_bundle(tmp_path / "with", reported.manifest, reported.files)
    assert load_bundle(tmp_path / "with", 64).manifest.files.keys() >= {CARD_FILE, REPORT_FILE}
    write_bundle(tmp_path / "without", trained.manifest, trained.files)
    assert CARD_FILE not in load_bundle(tmp_path / "without", 64).manifest.files


@pytest.mark.slow
def test_mistakes_have_times_items_and_the_place_of_the_event(trained):
    holdout = trained.evaluation.holdout
    for mistake in gather(trained).mistakes:
        row = np.flatnonzero((holdout.offset == mistake.offset) & (holdout.partition == mistake.partition))
        assert holdout.time_ms[row] == [mistake.time.timestamp() * 1_000]
        assert holdout.labels[row] == [mistake.label]
        assert mistake.events[-1].startswith("0 s ")
        item = int(holdout.events["item"][holdout.ends[row[0]] - 1])
        assert mistake.events[-1].endswith(f"{item:08x}") or item == 0


@pytest.mark.parametrize(("days", "unit", "names"), [
    ([0, 1, 13], "day", ["2026-01-01", "2026-01-02", "2026-01-14"]),
    ([0, 3, 4, 14], "week", ["2025-12-29", "2026-01-05", "2026-01-12"]),  # from a Thursday on; weeks begin on Mondays
])  # fmt: skip
def test_periods_are_days_until_there_are_two_weeks(days, unit, names):
    first_ms = int(np.datetime64("2026-01-01", "ms").astype(np.int64))
    time_ms = first_ms + np.array(days * 40) * DAY_MS
    labels = np.arange(len(time_ms)) % 3 == 0
    rows = SimpleNamespace(time_ms=time_ms, labels=labels, weight=np.ones(len(labels)), user=np.arange(len(labels)) % 9)
    rows = type("Rows", (SimpleNamespace,), {"__len__": lambda self: len(self.labels)})(**vars(rows))
    found_unit, found = periods(rows, np.linspace(0, 1, len(labels)))
    assert (found_unit, [period.name for period in found]) == (unit, names)
    assert sum(period.rows for period in found) == len(labels)


def test_a_segment_stands_out_only_by_its_whole_interval():
    def segment(auc: Estimate, mean: float = 0.05) -> Segment:
        rate = Estimate(0.05, 0.04, 0.06)
        metrics = {"roc_auc": auc, "positive_rate": rate, "mean_probability": Estimate(mean, mean, mean)}
        return Segment("device: mobile", 500, 40, metrics)

    assert segment(Estimate(0.7, 0.6, 0.79)).is_worse(0.8)
    assert not segment(Estimate(0.7, 0.6, 0.81)).is_worse(0.8)
    assert segment(Estimate(0.7, 0.6, 0.8), mean=0.061).is_off
    assert not segment(Estimate(0.7, 0.6, 0.8), mean=0.06).is_off
    assert not Segment("device: tablet", 5, 0, None).is_worse(0.8)
