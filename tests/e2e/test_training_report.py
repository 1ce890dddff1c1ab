"""The report of a training in a real browser: offline, on every screen, and what its threshold explorer computes."""

import pytest
from msgspec.structs import replace

from tests.conftest import QUICK
from tests.support.e2e.browser import chromium
from tests.support.shop import shop_examples
from training.bundles.trainer import train_model
from training.reporting.report import REPORT_FILE, with_report
from udfs.features.declaration_file import STANDARD

pytestmark = pytest.mark.e2e

SCREENS = ((390, True), (390, False), (1366, False))  # and whether it is dark


@pytest.fixture(scope="module")
def browser(run_directory):
    settings = replace(QUICK, features=STANDARD.names[::5], rounds=10, compare=("logistic",))
    trained = with_report(train_model(shop_examples(), settings))
    path = run_directory / REPORT_FILE
    path.write_bytes(trained.files[REPORT_FILE])
    with chromium() as browser:
        browser.driver.get(path.as_uri())
        yield browser


@pytest.mark.parametrize(("width", "dark"), SCREENS)
def test_the_report_is_whole_on_every_screen(browser, width, dark):
    browser.shoot("report", width, dark)
    assert browser.run("return document.documentElement.scrollWidth") <= width
    assert browser.run("return performance.getEntriesByType('resource').length") == 0
    assert browser.run("return document.querySelectorAll('figure svg').length") > 15
    style = "return getComputedStyle(document.body)"
    page, text = browser.run(f"{style}.backgroundColor"), browser.run(f"{style}.color")
    assert (brightness(page) < brightness(text)) == dark
    label = "return getComputedStyle(document.querySelector('figure svg text')).fill"
    assert browser.run(label) == text
    assert browser.complaints() == []


def brightness(color: str) -> int:
    return sum(int(part) for part in color.removeprefix("rgb(").removesuffix(")").split(","))


def number(browser, selector: str) -> float:
    return float(browser.text(selector).removesuffix("%"))


def enter(browser, name: str, value: float) -> None:
    script = "const field = document.getElementById('%s'); field.value = %s; field.dispatchEvent(new Event('input'))"
    browser.run(script % (name, value))


def test_the_explorer_computes_what_a_threshold_earns(browser):
    enter(browser, "cost", 2)
    enter(browser, "value", 30)
    browser.driver.find_element("css selector", "#best").click()
    best = number(browser, "#net-value")
    contacts, hits = number(browser, "#contacts"), number(browser, "#hits")
    assert best == pytest.approx(30 * hits - 2 * contacts, abs=0.5)
    assert number(browser, "#precision") == pytest.approx(100 * hits / contacts, abs=0.3)
    last = browser.run("return Number(document.getElementById('threshold').max)")
    for place in (0, last // 2, last):
        enter(browser, "threshold", place)
        assert number(browser, "#net-value") <= best
    assert number(browser, "#contacts") == 1000
    assert number(browser, "#recall") == 100
    enter(browser, "cost", 0)
    browser.driver.find_element("css selector", "#best").click()
    assert number(browser, "#recall") == 100  # what costs nothing is done for every positive
