"""`intent check`: what is accepted of data and what not, in one page; no broker."""

import json
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.training.data.test_preparation import archive
from training.check import main
from training.data.preparation import Preparation, PrepareError, prepare
from training.data.summary import MAX_NAMES
from training.inspection.inspection import Inspection, inspect
from training.inspection.text import problems
from training.simulation.clickstream import Simulation, simulate
from udfs.measurement.labels import CONVERTED, Label

ROOT = Path(__file__).parents[3]
AT = 1_772_355_600_000  # 2026-03-01 09:00 UTC


def lines(path: Path, rows: list[dict | str]) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def click(user: str = "ada", name: str = "view_item", minute: float = 0, **fields) -> dict:
    return {"user_id": user, "event_name": name, "event_time": AT + round(minute * 60_000)} | fields


def mapping_of_files(path: Path, files: str) -> Path:
    """A mapping of files with clicks in the contract's names, by pattern."""
    path.write_text(
        "columns: {user_id: user_id, event_name: event_name, event_time: event_time}\ntime_format: epoch_ms\n"
        f"files: {files}\n"
    )
    return path


@pytest.fixture
def shop(tmp_path):
    """A file of clicks that are all accepted."""
    stream = simulate(Simulation(users=300, hours=24, seed=3))
    return lines(tmp_path / "clicks.jsonl", list(stream.clicks())), stream


def checked(capsys, *arguments: object) -> tuple[int, str]:
    code = main([str(argument) for argument in arguments])
    output = capsys.readouterr()
    return code, output.out + output.err


def test_clean_data_has_facts_and_no_problem(capsys, shop, monkeypatch):
    monkeypatch.chdir(ROOT)
    path, stream = shop
    code, text = checked(capsys, path)
    assert code == 0
    assert f"accepted      {len(stream):,}" in text
    assert "users         " in text
    assert "purchase by the same user within 30 min" in text
    assert "not accepted  0\n" in text
    assert "contract" not in text
    assert "count as `other`" not in text


def test_user_ids_that_were_floats_are_told(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    path = lines(tmp_path / "c.jsonl", [click(user, minute=at) for at, user in enumerate(("12.0", "1e5", "7", "1.5"))])
    _, text = checked(capsys, path)
    assert "2 events have user ids that look like floats (12.0, 1e5)" in text
    assert "123.0 is another user than 123" in text


DAY = 1_440


def days(*numbers: int) -> list[dict]:
    return [click(f"u{at % 7}", minute=day * DAY + at) for day in numbers for at in range(0, DAY, 10)]


def test_a_day_without_events_is_told_and_what_depends_on_it_has_no_label(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    path = lines(tmp_path / "c.jsonl", days(0, 1, 3, 4))
    _, text = checked(capsys, path)
    assert "no event at all from 2026-03-03 08:50 to 2026-03-04 09:00 UTC: data is missing" in text
    assert "are no examples (3 events)" in text
    found, whole = (inspect(lines(tmp_path / "d.jsonl", rows), label=CONVERTED) for rows in (days(0, 2), days(0, 1)))
    assert found.examples == whole.examples - 3


def test_less_than_two_weeks_are_told_with_the_features_that_need_more(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    _, text = checked(capsys, lines(tmp_path / "c.jsonl", days(0, 1, 2)))
    assert "the data covers 3.0 days, less than two weeks: what local_hour and local_weekday seem to say" in text
    _, text = checked(capsys, lines(tmp_path / "d.jsonl", days(*range(15))))
    assert "two weeks" not in text
    _, text = checked(capsys, lines(tmp_path / "e.jsonl", days(*range(5), *range(15, 20))))
    assert "the data covers 10.0 days, less than two weeks" in text


def test_the_counts_are_those_of_the_data(shop):
    path, stream = shop
    clicks = list(stream.clicks())
    found = inspect(path, label=CONVERTED)
    assert found.is_clean
    assert found.summary.accepted == int(found.kinds.sum()) == int(found.by_hour.sum()) == len(clicks)
    assert found.users == dict(Counter(one["user_id"] for one in clicks))
    assert found.summary.names["purchase"] == sum(one["event_name"] == "purchase" for one in clicks)
    assert 0 < found.positive_users <= found.positives <= found.examples


def test_what_is_not_accepted_is_shown_with_its_reason_and_ends_with_1(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    rows = [click(), click(price=-1), click(name="Order Completed"), click(name="quiz_done"), "broken"]
    code, text = checked(capsys, lines(tmp_path / "c.jsonl", rows))
    assert code == 1
    assert "accepted      3" in text
    assert "not accepted  2 (1 out_of_range, 1 invalid_json)" in text
    assert "! 2 records break the clicks contract" in text
    assert "-1" in text
    assert "1 Order Completed (probably purchase), 1 quiz_done" in text
    assert "! no purchase in the data" in text


def test_users_that_are_none_and_a_user_with_many_events_are_named(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    rows = [click(f"u{number}", minute=number) for number in range(1_000)]
    rows += [click("undefined", minute=number) for number in range(100)]
    _, text = checked(capsys, lines(tmp_path / "c.jsonl", rows))
    assert "user ids that are probably placeholders: undefined (100)" in text
    assert "user undefined has 9% of all events" in text


def test_users_who_look_like_bots_are_named_with_the_limits_that_they_reach(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    rows = [click(f"u{number}", minute=number) for number in range(98)]
    rows += [click("scraper", minute=number / 600) for number in range(150)]
    rows += [click("crawler", minute=number / 60) for number in range(2_000)]
    code, text = checked(capsys, lines(tmp_path / "c.jsonl", rows))
    assert code == 0
    assert (
        "! 2 of 100 users look like bots, with 96% of all events: crawler (2,000), scraper (150) (1 user with 2,000 "
        "events in an hour, 1 user with 100 events less than 200 ms apart on average). Training leaves"
    ) in text
    assert "look like bots" not in checked(capsys, lines(tmp_path / "people.jsonl", rows[:98]))[1]


@pytest.mark.parametrize("rows", [[], ["broken"], [click()], pytest.param([click(), click()], marks=pytest.mark.slow)])
def test_data_too_poor_for_anything_still_has_its_page(capsys, tmp_path, monkeypatch, rows):
    monkeypatch.chdir(ROOT)
    code, text = checked(capsys, lines(tmp_path / "c.jsonl", rows), "--html", tmp_path / "page.html")
    assert code == (0 if rows and rows[0] != "broken" else 1)
    assert "nan" not in text
    assert "<h1>" in (tmp_path / "page.html").read_text()


def test_the_page_escapes_what_the_data_says(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    rows = [click(name="<script>alert(1)</script>", minute=minute) for minute in range(40)]
    checked(capsys, lines(tmp_path / "c.jsonl", rows), "--html", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert page.count("<svg") == 4


def test_files_that_no_pattern_matches_are_named(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    (tmp_path / "data").mkdir()
    lines(tmp_path / "data" / "shop-clicks.jsonl", [click()])
    (tmp_path / "data" / "README.txt").write_text("hello")
    mapping = mapping_of_files(tmp_path / "m.yaml", "{'*-clicks*': {}}")
    _, text = checked(capsys, tmp_path / "data", "--mapping", mapping)
    assert "1 file matches no pattern of the mapping; left out: README.txt" in text


@pytest.mark.usefixtures("without_plots")
def test_names_of_files_that_are_not_utf_8_are_shown(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / os.fsdecode(b"\xf6.txt")).write_text("hello")
    path = lines(tmp_path / "data" / os.fsdecode(b"\xf6.jsonl"), [click(name="")])
    mapping = mapping_of_files(tmp_path / "m.yaml", "{'*.jsonl': {}}")
    _, text = checked(capsys, path.parent, "--mapping", mapping, "--html", tmp_path / "page.html")
    assert "\ufffd.jsonl, row 1: " in text
    assert "left out: \ufffd.txt" in text
    _, text = checked(capsys, path, "--html", tmp_path / os.fsdecode(b"\xf6.html"))
    assert text.startswith(f"{tmp_path}/data/\ufffd.jsonl\n")
    assert (tmp_path / os.fsdecode(b"\xf6.html")).exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("c.xlsx", b"", "unknown format .xlsx"),
        ("c.parquet", b"x", "not a Parquet file"),
        ("c.csv", b"a,b\n", "no column"),
    ],
)
def test_data_that_cannot_be_read_ends_with_2_and_one_line(capsys, tmp_path, monkeypatch, name, content, message):
    monkeypatch.chdir(ROOT)
    (tmp_path / name).write_bytes(content)
    code, text = checked(capsys, tmp_path / name)
    assert code == 2
    assert text.startswith("check: ")
    assert message in text
    assert text.count("\n") == 1


@pytest.mark.usefixtures("without_plots")
def test_events_and_orders_that_repeat_an_id_are_counted(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    rows = [click(f"u{number}", minute=number, event_id=f"e{number}") for number in range(60)]
    rows += [click("u0", event_id="e0"), click("u0", event_id="e0"), click("u1", event_id="e0")]
    orders = ["7", "7", "8", None]
    rows += [
        click(f"u{n % 2}", "purchase", 70 + n, transaction_id=orders[n], value=n, event_id="e9") for n in (0, 2, 1, 3)
    ]
    rows += [click("u0", "purchase", 80, transaction_id="7"), click("u0", transaction_id="7")]
    path = lines(tmp_path / "c.jsonl", rows)
    found = inspect(path)
    assert (found.repeats.events, found.repeats.orders, found.repeats.clashing_events) == (2, 1, 0)
    assert (found.filled["event_id"], found.filled["transaction_id"]) == (67, 5)
    _, text = checked(capsys, path, "--html", tmp_path / "page.html")
    for shown in (
        "events that repeat an event_id of the same user: 2 (the job leaves out 2 of them with clicks.duplicates",
        "purchases that repeat a transaction_id of the same user: 1 (an order counts once, with the value of its first",
    ):
        assert shown in text
        assert shown in (tmp_path / "page.html").read_text()
    assert "does not identify events" not in text


@pytest.mark.usefixtures("without_plots")
@pytest.mark.parametrize(("clashes", "is_problem"), [(4, False), (5, True), (50, True)])
def test_an_event_id_that_other_events_have_too_is_a_problem(capsys, tmp_path, monkeypatch, clashes, is_problem):
    monkeypatch.chdir(ROOT)
    rows = [click("ada", minute=number, event_id=f"e{number}", item_id="a") for number in range(100 - clashes)]
    rows += [
        click("ada", "scroll" if number % 2 else "view_item", number, event_id=f"e{number}", item_id="b")
        for number in range(clashes)
    ]
    _, text = checked(capsys, lines(tmp_path / "c.jsonl", rows), "--html", tmp_path / "page.html")
    problem = f"event_id does not identify events: {clashes}% of all events have the event_id of another event"
    assert (problem in text, problem in (tmp_path / "page.html").read_text()) == (is_problem, is_problem)


def test_rows_of_a_list_with_the_id_of_the_list_are_a_problem(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    visits = [
        {"visit": n, "user": f"u{n}", "events": [{"name": name, "at": AT + n} for name in ("view_item", "scroll")]}
        for n in range(1, 21)
    ]
    mapping = tmp_path / "m.yaml"
    mapping.write_text(
        "file: {explode: events}\ntime_format: epoch_ms\n"
        "columns: {event_id: visit, user_id: user, event_name: name, event_time: at}\n"
    )
    _, text = checked(capsys, lines(tmp_path / "c.jsonl", visits), "--mapping", mapping)
    assert "event_id does not identify events: 50% of all events" in text
    assert "Leave event_id out of the mapping" in text


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["ada", "bob"]),
        st.sampled_from(["view_item", "scroll", "purchase"]),
        st.sampled_from(["a", "b"]),
        st.sampled_from([None, "1", "2"]),
        st.sampled_from([None, "1", "2"]),
    ),
    max_size=30,
)


def left_out_by_hand(rows: list[dict]) -> list[dict]:
    """The rows that the job leaves out, of few rows in order of time."""
    kept, left_out = [], []
    for row in rows:
        ids = "transaction_id" if row["event_name"] == "purchase" and row["transaction_id"] else "event_id"
        is_again = any(
            one["user_id"] == row["user_id"]
            and one["by"] == ids
            and one[ids] == row[ids]
            and (ids == "transaction_id" or row["event_time"] - one["event_time"] < 3_600_000)
            for one in kept
            if row[ids]
        )
        (left_out if is_again else kept).append(row | {"by": ids})
    return left_out


@pytest.mark.slow
@given(EVENTS, st.integers(1, 40), st.randoms())
def test_the_label_leaves_out_what_the_job_leaves_out(tmp_path_factory, events, minutes, random):
    rows = [
        click(user, name, minutes * number, item_id=item, event_id=event_id, transaction_id=order)
        for number, (user, name, item, event_id, order) in enumerate(events)
    ]
    end = click("zoe", minute=minutes * 30 + 60)
    left_out = left_out_by_hand(rows)
    random.shuffle(rows)  # a file may be in any order
    found = inspect(lines(tmp_path_factory.mktemp("label") / "c.jsonl", [*rows, end]), label=CONVERTED)
    assert found.repeats.left_out_events == sum(row["by"] == "event_id" for row in left_out)
    views = sum(name != "purchase" for _, name, *_ in events)
    assert found.examples == views - sum(row["event_name"] != "purchase" for row in left_out)


@pytest.mark.parametrize(
    ("label", "name", "why"),
    [
        (CONVERTED, "purchase", "each event is purchase, which the label predicts"),
        (
            Label(events=("purchase",), horizon="30 min", rows=("add_to_cart", "begin_checkout")),
            "view_item",
            "no event is add_to_cart or begin_checkout, and the label predicts nothing after any other",
        ),
    ],
)
def test_where_no_event_is_scored_neither_check_nor_training_asks_for_more_data(tmp_path, label, name, why):
    rows = [click("ada", name, 60 * number) for number in range(40)] + [click("bob", "purchase", 30)]
    path = lines(tmp_path / "c.jsonl", rows)
    why = f"no event to train on: {why}: give the other events too, or choose another label"
    assert why in problems(inspect(path, label=label))
    with pytest.raises(PrepareError, match=why):
        prepare(path, tmp_path / "out", Preparation(label, workers=1))


def test_names_too_many_to_count_apart_are_told():
    found = Inspection()
    found.summary.count_names(Counter(f"page-{number}" for number in range(MAX_NAMES + 2)))
    assert "event_name has 10,000 values or more: is it the right column?" in problems(found)


def test_a_counter_that_restarts_with_each_visit_removes_nothing_from_the_label(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    rows = [
        click("ada", "purchase" if number == 4 else "view_item", 120 * visit + number, event_id=f"e{number}")
        for visit in range(20)
        for number in range(5)
    ]
    path = lines(tmp_path / "c.jsonl", rows)
    found = inspect(path, label=CONVERTED)
    assert (found.repeats.events, found.repeats.left_out_events) == (95, 0)
    assert (found.examples, found.positives) == (76, 76)  # the last visit has no horizon
    _, text = checked(capsys, path)
    assert "event_id of the same user: 95 (the job leaves out 0 of them with clicks.duplicates_within: 1 h" in text


def test_events_of_an_archive_are_in_the_order_of_their_arrival(tmp_path):
    clicks = [click(minute=minute, event_id="e") for minute in (45, 0, 90)]
    archive(tmp_path / "part-0.parquet", clicks, AT + 7_200_000 + np.arange(3), partitions=1)
    assert inspect(tmp_path).repeats.left_out_events == 2
    assert inspect(lines(tmp_path.parent / "c.jsonl", clicks)).repeats.left_out_events == 1


@pytest.mark.slow
@given(EVENTS)
def test_repeats_are_those_of_a_count_by_hand(tmp_path_factory, events):
    rows = [
        click(user, name, number, item_id=item, event_id=event_id, transaction_id=order)
        for number, (user, name, item, event_id, order) in enumerate(events)
    ]
    found = inspect(lines(tmp_path_factory.mktemp("repeats") / "c.jsonl", rows))
    orders = [(user, order) for user, name, _, _, order in events if name == "purchase" and order]
    ids = [(e[0], e[3]) for e in events if e[3] and not (e[1] == "purchase" and e[4])]
    assert found.repeats.orders == len(orders) - len(set(orders))
    assert found.repeats.events == len(ids) - len(set(ids))
    assert found.repeats.clashing_events <= found.repeats.events


ORDERS_CLASH = "transaction_id does not identify orders: "
ORDERS_SPLIT = "the value of orders is incomplete: "


@pytest.mark.usefixtures("without_plots")
@pytest.mark.parametrize(
    ("again", "problem"),
    [
        ({"value": 20}, ORDERS_CLASH + "5% of all purchases"),
        ({"item_id": "b"}, ORDERS_CLASH + "5% of all purchases"),
        ({"value": None, "item_id": None}, None),  # reported once more
        ({}, None),
        ({"item_id": "b", "value": 20, "after_s": 1}, ORDERS_SPLIT + "5% of all purchases"),  # a row of each item
        ({"item_id": "b", "value": None, "after_s": 0}, None),
    ],
)
def test_orders_that_are_not_orders_are_a_problem(capsys, tmp_path, monkeypatch, again, problem):
    monkeypatch.chdir(ROOT)
    seconds = again.pop("after_s", 86_400)
    rows = [click("ada", "purchase", 60 * n, transaction_id=f"t{n}", value=10, item_id="a") for n in range(95)]
    rows += [row | again | {"event_time": row["event_time"] + seconds * 1_000} for row in rows[:5]]
    path = lines(tmp_path / "c.jsonl", rows)
    _, text = checked(capsys, path, "--html", tmp_path / "page.html")
    for line in (ORDERS_CLASH, ORDERS_SPLIT):
        assert (line in text) == (problem is not None and problem.startswith(line))
    assert problem is None or problem in text and problem in (tmp_path / "page.html").read_text()
    _, text = checked(capsys, lines(tmp_path / "fewer.jsonl", rows[:-1]))
    assert ORDERS_CLASH not in text
    assert ORDERS_SPLIT not in text
    assert "purchases that repeat a transaction_id of the same user: 4 (" in text


def test_ids_that_are_placeholders_count_as_missing(tmp_path):
    ids = ["null", " ", "", "(not set)", "UNDEFINED", None, "e1"]
    rows = [
        click("ada", "purchase", number, event_id=one, transaction_id=one, anonymous_id=one)
        for one in ids
        for number in range(2)
    ]
    found = inspect(lines(tmp_path / "c.jsonl", rows))
    assert {found.filled[name] for name in ("event_id", "transaction_id", "anonymous_id")} == {2}
    assert (found.repeats.orders, found.repeats.events, found.devices.count) == (1, 0, 1)


def visits(device: str, users: list[str]) -> list[dict]:
    return [click(user, minute=number, anonymous_id=device) for number, user in enumerate(users)]


def test_logins_are_counted(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    rows = visits("d1", ["d1", "d1", "ada"]) + visits("d2", ["d2"]) + visits("d3", ["bob"]) + [click("eve")]
    _, text = checked(capsys, lines(tmp_path / "c.jsonl", rows))
    assert "logins        1 of 3 anonymous ids with events before and after a login" in text
    assert "not identify a device" not in text


@pytest.mark.parametrize(
    ("users", "fact"),
    [
        (["ada", "bob"], "none can be followed: no event has its anonymous_id as user_id"),
        (["d1", "d1"], "none: all events with an anonymous_id have it as user_id"),
        ([], None),
    ],
)
def test_that_following_logins_would_change_nothing_is_a_fact(capsys, tmp_path, monkeypatch, users, fact):
    monkeypatch.chdir(ROOT)
    code, text = checked(capsys, lines(tmp_path / "c.jsonl", [*visits("d1", users), click("eve")]))
    assert code == 0
    assert f"logins        {fact}" in text if fact else "  logins  " not in text


@pytest.mark.usefixtures("without_plots")
@pytest.mark.parametrize(("users", "is_problem"), [(20, False), (21, True)])
def test_an_anonymous_id_of_many_users_is_a_problem(capsys, tmp_path, monkeypatch, users, is_problem):
    monkeypatch.chdir(ROOT)
    rows = visits("till", ["till", *(f"u{number}" for number in range(users))] * 2) + visits("d1", ["d1", "ada"])
    _, text = checked(capsys, lines(tmp_path / "c.jsonl", rows), "--html", tmp_path / "page.html")
    problem = f"1 anonymous_id does not identify a device: till ({users} users). Each has more than 20 users"
    assert (problem in text, problem in (tmp_path / "page.html").read_text()) == (is_problem, is_problem)


@pytest.mark.parametrize(
    ("users", "count", "is_problem"),
    [(["u1", "u2"], 50, True), (["u1", "u2"], 49, False), (["till", "u1"], 60, False), (["till"], 60, False)],
)
def test_an_anonymous_id_of_several_users_with_many_events_is_a_problem(
    capsys, tmp_path, monkeypatch, users, count, is_problem
):
    monkeypatch.chdir(ROOT)
    rows = visits("till", [users[number % len(users)] for number in range(count)])
    rows += [click(f"v{number}", minute=number, anonymous_id=f"d{number}") for number in range(1_000 - count)]
    _, text = checked(capsys, lines(tmp_path / "c.jsonl", rows))
    assert ("not identify a device: till (2 users)" in text) == is_problem


def test_of_many_shared_ids_those_of_most_events_are_named(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    rows = [row for n in range(8) for row in visits(f"till-{n}", [f"u{k}" for k in range(21)] + ["u1"] * n)]
    _, text = checked(capsys, lines(tmp_path / "c.jsonl", rows))
    assert "8 anonymous ids do not identify a device: till-7 (21 users), till-6 (21 users), till-5" in text
    assert "till-3 (21 users) and 3 more. Each" in text


def test_events_that_were_exported_twice_are_counted(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    rows = [click(f"u{number % 7}", minute=number) for number in range(50)]
    again = [row | {"event_id": f"e{number}"} for number, row in enumerate(rows[:20])]  # of another export
    _, text = checked(capsys, lines(tmp_path / "c.jsonl", rows + again))
    assert "20 events are identical to another event of the same user (" in text
    assert "remove equal rows (`sort -u`" in text


def test_a_misspelt_column_of_one_of_several_kinds_of_files_is_named(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    (tmp_path / "data").mkdir()
    for name in ("views", "orders"):
        lines(tmp_path / "data" / f"{name}.jsonl", [click(name="purchase", item="x")])
    mapping = mapping_of_files(
        tmp_path / "m.yaml", "{views*: {columns: {item_id: itemm}}, orders*: {columns: {item_id: item}}}"
    )
    _, text = checked(capsys, tmp_path / "data", "--mapping", mapping)
    assert "column itemm was in no row" in text


def test_columns_are_not_called_absent_where_no_row_could_be_read(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    (tmp_path / "c.csv").write_text("user_id,event_name,event_time,price\n,view_item,1,2\n")
    _, text = checked(capsys, tmp_path / "c.csv")
    assert "user_id (column user_id) is missing" in text
    assert "in no row" not in text
