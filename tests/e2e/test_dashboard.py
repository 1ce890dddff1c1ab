"""The dashboard in a real browser, over a broker whose topics fill as if the jobs ran."""

import re
import signal
import subprocess
import sys

import pytest
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.select import Select

from jobs.common.settings import load_settings
from jobs.common.topics import create_topics
from tests.support.e2e.browser import chromium
from tests.support.e2e.pipeline import CONF
from tests.support.e2e.plausible import DRIFTS, PlausibleShop, fill_registry, renamed
from tools.stack.local_stack import LocalStack
from tools.stack.processes import stop
from udfs.measurement.kpis import load_kpis

pytestmark = pytest.mark.e2e

PAGES = ("", "experiment", "kpis", "models", "drift", "dead-letters", "user")
PHONE, LAPTOP, PROJECTOR = 390, 1366, 1920
SCREENS = ((PHONE, True), (LAPTOP, False), (PROJECTOR, True))  # and whether it is dark
FOR_A_ROOM = ("", "experiment", "drift")


@pytest.fixture(scope="module")
def broker(run_directory):
    stack = LocalStack(run_directory / "dashboard")
    stack.start_broker()
    yield stack
    stack.stop()


@pytest.fixture(scope="module")
def overrides(broker, bundle_directory, run_directory) -> list[str]:
    models = run_directory / "dashboard-models"
    champion = renamed(bundle_directory, models / "20261101T060000Z-1f00ba12")
    challenger = renamed(bundle_directory, models / "20261120T060000Z-8c21d5e0")
    registry = fill_registry(run_directory / "dashboard-registry", champion, challenger)
    return [f"kafka.bootstrap.servers={broker.bootstrap_servers}", f"model.registry={registry.uri}"]


@pytest.fixture(scope="module")
def shop(overrides):
    settings = load_settings(CONF, overrides, {})
    create_topics(settings, 4, 1)
    shop = PlausibleShop(settings, load_kpis(CONF.parent / "kpis.yaml"))
    shop.fill()
    shop.start()
    yield shop
    shop.stop()


@pytest.fixture(scope="module")
def dashboard(shop, overrides, run_directory):
    """Its process and URL."""
    sets = [word for override in overrides for word in ("--set", override)]
    command = [sys.executable, "-m", "dashboard", "--conf", str(CONF), "--port", "0", *sets]
    with (run_directory / "dashboard.log").open("w") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, cwd=CONF.parents[1])
    line = process.stdout.readline()
    assert line.startswith("dashboard: http://127.0.0.1:"), (run_directory / "dashboard.log").read_text()
    yield process, line.split()[1]
    process.terminate()
    process.wait(10)


@pytest.fixture(scope="module")
def url(dashboard) -> str:
    return dashboard[1]


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


def number_in(text: str) -> float:
    found = re.search(r"[\d,.]+", text)
    return float(found[0].replace(",", "")) if found else 0.0


def test_it_shows_what_flows_and_goes_on_doing_so(browser, url):
    browser.show(LAPTOP)
    browser.driver.get(url)
    browser.wait(lambda: number_in(browser.text("#scores")) > 20, "a rate of scores")
    assert browser.wait(lambda: browser.text("#budget .verdict"), "a latency").startswith("within the ")
    seen = {browser.wait(lambda: browser.text("#clock"), "a time")}
    for _ in range(3):
        seen.add(browser.wait(lambda: browser.text("#clock") not in seen and browser.text("#clock"), "a later time"))
    assert browser.run("return document.querySelectorAll('#rates canvas').length") == 1
    assert browser.text("#notices") == ""
    assert browser.text("h1") == "Scoring events in real time"


def test_charts_can_be_read_with_the_keyboard_and_as_tables(browser, url):
    browser.driver.get(url)
    browser.wait(lambda: browser.run("return !!document.querySelector('#rates canvas')"), "a chart")
    plot = browser.driver.find_element("css selector", "#rates .plot")
    plot.send_keys(Keys.END, Keys.ARROW_LEFT)
    assert re.match(r"\d\d:\d\d:\d\d: events [\d.,]+, scores [\d.,]+", browser.text("#rates .reading"))
    assert "events: latest" in plot.get_attribute("aria-label")
    browser.driver.find_element("css selector", "#rates summary").send_keys(Keys.ENTER)
    browser.wait(lambda: browser.run("return document.querySelectorAll('#rates tbody tr').length") > 2, "a table")


@pytest.mark.parametrize("page", PAGES)
def test_every_page_is_whole_on_every_screen(browser, url, shop, page):
    target = f"{url}/{page}" + (f"?id={shop.newest_user}" if page == "user" else "")
    for width, dark in SCREENS[: 3 if page in FOR_A_ROOM else 2]:
        browser.show(width, dark=dark)
        browser.driver.get(target)
        browser.wait(lambda: browser.text("#clock").startswith("Updated"), "the page's data")
        if page not in ("user", "dead-letters"):
            browser.wait(lambda: browser.run("return !!document.querySelector('canvas')"), "a chart")
        browser.shoot(f"dashboard-{page or 'live'}", width, dark)
        assert browser.run("return document.documentElement.scrollWidth") <= width
        loaded = browser.run("return performance.getEntriesByType('resource').map((entry) => entry.name)")
        assert all(name.startswith(url) for name in loaded)
    assert browser.complaints() == []


def test_the_experiments_page_begins_with_the_decision(browser, url):
    browser.driver.get(f"{url}/experiment")
    first = "return document.querySelector('main h1').textContent"
    assert browser.run(first).startswith("Keep running: conversion rate improved,")
    browser.wait(lambda: browser.run("return document.querySelectorAll('#effects tbody tr').length") == 9, "9 KPIs")


#: The first answer is of a moment at which only KPIs without a relative interval had been read.
FIRST_WITHOUT_LOOKS = """
const real = window.fetch;
let first = true;
window.fetch = async (...given) => {
  const response = await real(...given);
  if (!first) return response;
  first = false;
  const data = await response.json();
  for (const one of data.experiments) one.kpis = one.kpis.filter(({ looks }) => !looks.times.length);
  return new Response(JSON.stringify(data));
};
"""


def test_an_experiments_chart_begins_with_a_kpi_that_can_be_drawn_and_keeps_the_one_that_is_chosen(browser, url):
    added = browser.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": FIRST_WITHOUT_LOOKS})
    browser.driver.get(f"{url}/experiment")
    browser.driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", added)
    browser.wait(
        lambda: "No evaluation with a relative interval yet" in browser.text("#looks"), "a KPI without a chart"
    )
    only = browser.run("return document.querySelector('#kpi').value")
    browser.wait(lambda: browser.run("return !!document.querySelector('#looks canvas')"), "a chart")
    assert browser.run("return document.querySelector('#kpi').value") != only
    Select(browser.driver.find_element("id", "kpi")).select_by_value(only)
    drawn = "return document.querySelector('#looks canvas') !== null"
    browser.wait(lambda: not browser.run(drawn), "the chosen KPI")
    clock = browser.text("#clock")
    browser.wait(lambda: browser.text("#clock") != clock, "the next answer")
    assert browser.run("return document.querySelector('#kpi').value") == only


def test_an_alarm_of_drift_shows_and_names_what_moved(browser, url, shop):
    browser.driver.get(f"{url}/drift")
    browser.wait(lambda: browser.text("h1").startswith("Watch"), "drift that is worth watching")
    shop.alarm.set()
    browser.wait(lambda: browser.text("h1").startswith("Alarm"), "the alarm")
    assert DRIFTS[0] in browser.text("h1")
    browser.wait(lambda: browser.run("return !!document.querySelector('#compared svg .outline')"), "the histograms")
    browser.shoot("dashboard-alarm", LAPTOP)
    assert browser.complaints() == []


def test_a_users_score_is_computed_again_and_explained(browser, url, shop):
    browser.driver.get(f"{url}/user?id={shop.newest_user}")
    assert "Recomputed from the topics: score matches" in browser.text("main")
    assert browser.run("return document.querySelectorAll('.reasons tbody tr').length") > 3


def test_what_events_bring_is_text(browser, url):
    browser.driver.get(f"{url}/dead-letters")
    browser.wait(lambda: "<script>alert(1)</script>" in browser.text("#samples"), "a sample")
    browser.driver.get(f"{url}/user?id=%3Cscript%3Ealert(1)%3C%2Fscript%3E")
    assert browser.text("h1") == "User <script>alert(1)</script>"
    assert browser.run("return [...document.scripts].every((script) => script.src)")
    assert browser.complaints() == []


def test_it_survives_a_restart_of_the_broker_and_says_meanwhile_that_it_is_away(browser, url, broker):
    browser.show(LAPTOP)
    browser.driver.get(url)
    browser.wait(lambda: number_in(browser.text("#scores")) > 20, "a rate of scores")
    stop([broker.processes["broker"]])
    browser.wait(lambda: "No response from the Kafka broker since" in browser.text("#notices"), "the outage to be told")
    broker.start_broker()
    browser.wait(lambda: browser.text("#notices") == "", "the broker to be back")
    browser.wait(lambda: number_in(browser.text("#scores")) > 20, "a rate of scores")
    assert browser.complaints() == []


def test_silence_is_told_and_since_when(browser, url, shop):
    browser.driver.get(url)
    browser.wait(lambda: number_in(browser.text("#scores")) > 20, "a rate of scores")
    shop.stop()
    notice = r"No records in topic clicks since \d\d:\d\d:\d\d"
    browser.wait(lambda: re.search(notice, browser.text("#notices")), "silence")


def test_a_page_whose_server_is_gone_says_so(browser, dashboard):
    process, url = dashboard
    browser.driver.get(url)
    browser.wait(lambda: browser.text("#clock").startswith("Updated"), "the page's data")
    process.terminate()
    assert process.wait(10) == -signal.SIGTERM  # it shuts down, and then lets the signal end it
    notice = "No response from the dashboard server since"
    browser.wait(lambda: notice in browser.text("#notices"), "the notice")
