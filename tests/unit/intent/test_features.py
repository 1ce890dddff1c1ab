"""`intent features`: lists features, adds to a declaration, and measures what features cost."""

import re
import subprocess
import sys
import time
from pathlib import Path

import lightgbm
import msgspec
import numpy as np
import pytest

from intent.cli import main
from intent.features.additions import Addition, kind_addition, read_or_start, write_addition
from intent.features.cost import measure
from intent.features.importance import importance_shares
from intent.features.late_progress import late_progress
from tests.support.bundles import NAMES, make_bundle
from training.modeling.families import FAMILIES
from training.modeling.family import FitRows, Fitting
from training.modeling.lightgbm_model import exact_in_float32
from udfs.contracts.packed_events import OWN_KIND_CODES
from udfs.features.declaration_file import STANDARD, DeclarationError, load_declaration, read_file
from udfs.models.bundle import ENDPOINT_FILE, EXPORT_FILE, LIGHTGBM_FILE, WARM_UP_FILE, XGBOOST_FILE, load_bundle
from udfs.models.remote import Endpoint

PROJECT = Path(__file__).parents[3]
#: Without the standard features, so that it compiles in a second.
SMALL = """\
# of our shop
kinds:
  quiz: 100  # never used again

features:
  # counted
  own:
    quizzes:
      value: count(kind == quiz, over=24h)  # a day
      unit: events
      doc: quizzes
    pages:
      value: distinct(page)
      unit: pages
      doc: different pages
  now:
    price:
      value: now.value
      unit: currency
      doc: value of this event
"""
ENTRY = {"value": "now.value", "unit": "u", "doc": "d"}
OF_FEATURE = ["--unit", "events", "--doc", "text"]


@pytest.fixture
def small(tmp_path) -> Path:
    path = tmp_path / "features.yaml"
    path.write_text(SMALL)
    return path


@pytest.fixture
def features(capsys):
    """Run a command; returns its exit code, output and error."""

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        code = main(["features", *map(str, arguments)])
        return code, *capsys.readouterr()

    return run


def names_of(table: str) -> list[str]:
    return [line.split()[0] for line in table.splitlines()[1:]]


def test_the_list_has_a_line_for_each_standard_feature(features):
    code, printed, _ = features("list")
    header, *lines = printed.splitlines()
    assert code == 0
    assert [line.split()[0] for line in lines] == list(STANDARD.names)
    assert all(line[header.index("description") - 1] == " " for line in lines)
    assert max(map(len, lines)) <= 150


def test_the_list_is_printed_without_a_command_too(features):
    assert features() == features("list")
    assert features("--group", "session") == features("list", "--group", "session")


def test_the_list_ends_quietly_where_its_reader_does():
    command = [sys.executable, "-m", "intent", "features"]
    with subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 0


def test_the_list_shows_a_group_with_expressions(features, small):
    _, printed, _ = features("list", "--declaration", small, "--group", "own", "--expressions")
    assert [re.split("  +", line) for line in printed.splitlines()] == [
        ["name", "group", "unit", "description", "expression"],
        ["quizzes", "own", "events", "quizzes", "count(kind == quiz, over=24h)"],
        ["pages", "own", "pages", "different pages", "distinct(page)"],
    ]


def test_the_list_shows_the_features_of_a_model(features, tmp_path):
    assert names_of(features("list", "--bundle", make_bundle(tmp_path, "v1"))[1]) == list(NAMES)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["list", "--group", "sesion"], "features: --group sesion: no such group; expected one of recency, window, "),
        (["list", "--declaration", "none.yaml"], "features: none.yaml: cannot be read: [Errno 2]"),
        (["list", "--bundle", "none"], "features: none: bundle directory not found; `intent train` creates one"),
        (
            ["list", "--bundle", "b", "--declaration", "f"],
            "features list: --declaration and --bundle can't be combined.",
        ),
        (["cost", "--events", "0"], "features cost: Invalid value for '--events': 0 is not in the range"),
        (["lst"], "features: No such command 'lst'. Did you mean 'list'?"),
    ],
)
def test_what_cannot_be_listed_or_measured_is_refused_in_a_line(features, arguments, error):
    code, printed, said = features(*arguments)
    assert (code, printed, said.count("\n")) == (2, "", 1)
    assert said.startswith(error)


@pytest.mark.slow
def test_the_commands_start_without_numba():
    program = (
        "import sys, intent.features.__main__ as command, intent.features.cost, intent.features.lookup;"
        "command.main(['list']); sys.exit('numba' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], cwd=PROJECT, check=True, capture_output=True)


def test_the_list_imports_no_library_that_takes_long():
    program = (
        "import sys, intent.features.__main__ as command; command.main(['list']);"
        "sys.exit(bool({'xgboost', 'pyarrow', 'kafka', 'dashboard', 'training'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", program], cwd=PROJECT, check=True, capture_output=True)


def test_a_feature_is_added_measured_and_explained(features, small):
    code, printed, error = features(
        "add", "late_{window}", "count(kind  ==  quiz, over={window})", *OF_FEATURE, "--declaration", small
    )
    assert (code, printed) == (2, "")
    assert "key features.own.late_{window}: {window} needs windows, such as windows: [30m, 24h]" in error
    small.write_text(f"windows: [1h, 2h]\n{SMALL}")
    code, printed, error = features(
        "add", "late_{window}", "count(kind ==\n quiz, over={window})", *OF_FEATURE, "--declaration", small
    )
    assert (code, error) == (0, "")
    assert re.search(rf"added late_1h to {small}, group own\n  count\(kind == quiz, over=1h\)\n", printed)
    assert re.search(r"  events: text\n  \d\.\d\d µs per event\n", printed)
    assert re.search(r"All 5 features take \d\.\d\d µs per event, measured on this machine\.", printed)
    assert f"--set declaration={small}" in printed
    assert load_declaration(small).names == ("quizzes", "pages", "late_1h", "late_2h", "price")


@pytest.mark.parametrize(
    ("kinds", "expression", "step"),
    [
        ("", "now.scroll", "The job needs no change: the bundle of the model contains the feature."),
        (
            "kinds: {quiz: 100}\n",
            "count(kind == quiz)",
            "The job needs no change if it was submitted with the kinds, columns and totals of the file.\n"
            "  Otherwise submit it again:  clicks.declaration: FILE",
        ),
        (
            "",
            "count(over=30d, by=1d)",
            "Submit the job again with:  clicks.declaration: FILE\n"
            "  It must keep totals of count() in 31 buckets of 24 h. Promote the model after that.",
        ),
    ],
)
def test_what_a_feature_needs_of_the_job_is_said(features, small, kinds, expression, step):
    small.write_text(f"{kinds}features: {{}}\n")
    code, printed, _ = features("add", "new", expression, *OF_FEATURE, "--declaration", small)
    assert code == 0
    assert step.replace("FILE", str(small)) in printed


def test_a_kind_is_added_and_the_job_needs_it(features, small):
    code, printed, error = features("add", "--kind", "Store_opened", "--declaration", small)
    assert (code, error) == (0, "")
    assert f"added the kind of event Store_opened with the code 101 to {small}" in printed
    assert f"Submit the job again with:  clicks.declaration: {small}" in printed
    assert small.read_text() == SMALL.replace("again\n", "again\n  Store_opened: 101\n")


def test_a_new_file_extends_the_standard_features(features, tmp_path):
    path = tmp_path / "own.yaml"
    features("add", "--kind", "quiz", "--declaration", path)
    write_addition(path, Addition(("features", "own"), "price", ENTRY))
    file = read_file(path)
    assert (file.extends, file.kinds, list(file.features)) == ("standard", {"quiz": 100}, ["own"])
    assert path.read_text().startswith("# Kinds of events and features of this shop.")
    assert path.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "---\n"])
def test_an_empty_file_is_begun(tmp_path, text):
    path = tmp_path / "own.yaml"
    path.write_text(text)
    write_addition(path, Addition(("features", "own"), "price", ENTRY))
    assert path.read_text().startswith(text)
    assert read_file(path).extends == "standard"


def test_the_example_file_takes_features_and_kinds(tmp_path):
    path = tmp_path / "features.yaml"
    text = (PROJECT / "conf" / "features.yaml").read_text()
    path.write_text(text)
    write_addition(path, Addition(("features", "own"), "price", ENTRY))
    write_addition(path, kind_addition(read_or_start(path), str(path), "quiz"))
    write_addition(path, Addition(("features", "own"), "price_2", ENTRY))
    assert path.read_text().startswith(text)
    assert load_declaration(path).names == (*STANDARD.names, "price", "price_2")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["quizzes", "count()", *OF_FEATURE], "FILE: key features: quizzes is declared twice: rename one"),
        (["price", "count()", *OF_FEATURE], "FILE: key features: price is declared twice: rename one"),
        (
            ["Price", "count()", *OF_FEATURE],
            "FILE: key features.own.Price: 'Price': expected a lower-case letter, then",
        ),
        (["a b", "count()", *OF_FEATURE], "FILE: key features.own.a b: 'a b': expected a lower-case letter, then"),
        (["new", "cuont()", *OF_FEATURE], "FILE: key features.own.new.value: cuont(): unknown function cuont; did you"),
        (
            ["new", "count(kind == quizz)", *OF_FEATURE],
            "FILE: key features.own.new.value: quizz: kind has no quizz; did",
        ),
        (["new", "count(", *OF_FEATURE], "FILE: key features.own.new.value: not an expression: '(' was never closed"),
        (["new", "1", "--unit", "u" * 33, "--doc", "d"], "FILE: key features"),
        (["new", "1", "--unit", " ", "--doc", "d"], "Invalid value for '--unit': expected a text, got an empty one"),
        (["new", "1", "--unit", "\udcff", "--doc", "d"], "Invalid value for '--unit': expected a text in UTF-8"),
        (["new", "1", "--unit", "u"], "Missing option '--doc'."),
        (["new"], "Missing argument 'EXPRESSION'."),
        ([], "Either NAME or --kind is required."),
        (["new", "--kind", "other_kind"], "NAME and --kind can't be combined."),
        (["--kind", "other_kind", "--unit", "u"], "--kind and --unit can't be combined."),
        (["--kind", "other_kind", "--group", "own"], "--kind and --group can't be combined."),
        (["--kind", "quiz"], "FILE: key kinds: quiz is declared already, with the code 100"),
        (["--kind", "purchase"], "FILE: key kinds: purchase is a standard kind; leave it out"),
        (["--kind", "a-b"], "FILE: key kinds: 'a-b': expected 1 to 40 letters, digits and underscores"),
    ],
)
def test_what_cannot_be_added_is_refused_and_the_file_stays(features, small, arguments, error):
    code, printed, said = features("add", *arguments, "--declaration", small)
    assert (code, printed, said.count("\n")) == (2, "", 1)
    assert said.removeprefix("features: ").removeprefix("features add: ").startswith(error.replace("FILE", str(small)))
    assert small.read_text() == SMALL
    assert [path.name for path in small.parent.iterdir()] == [small.name]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("features: {own: {a: {value: '1', unit: u, doc: d}}}\n", "is written in a way that this command can't add to"),
        (
            "features: &all\n  own: &own\n    a: &a {value: '1', unit: u, doc: d}\n  other: *own\n",
            "a is declared twice",
        ),
        ("features:\n  own: {}\n  own: {}\n", "line 3: key own is given twice"),
        ("features:\n  own:\n", "key features"),
        ("features: 7\n", "key features: Expected `object`, got `int`"),
        ("extends: other\n", "key extends: Invalid enum value 'other'"),
        ("[1]", "Expected `object`, got `array`"),
        ("a: [", "cannot be read"),
        (b"\xff", "cannot be read"),
    ],
)
def test_a_file_that_cannot_be_added_to_is_left_as_it_is(features, small, text, error):
    content = text if isinstance(text, bytes) else text.encode()
    small.write_bytes(content)
    code, printed, said = features("add", "new", "now.value", *OF_FEATURE, "--declaration", small)
    assert (code, printed, said.count("\n")) == (2, "", 1)
    assert said.startswith(f"features: {small}: ")
    assert error in said
    assert small.read_bytes() == content


def test_an_addition_that_an_alias_would_repeat_is_left_to_people(small):
    small.write_text("features:\n  own: &own {}\n  other: *own\n")
    with pytest.raises(DeclarationError, match=r'by hand new: \{value: "now.value", unit: "u", doc: "d"\} under f'):
        write_addition(small, Addition(("features", "other"), "new", ENTRY))
    assert small.read_text() == "features:\n  own: &own {}\n  other: *own\n"
    assert [path.name for path in small.parent.iterdir()] == [small.name]


def test_a_directory_that_is_missing_is_named(features, tmp_path):
    path = tmp_path / "conf" / "features.yaml"
    code, _, error = features("add", "new", "now.value", *OF_FEATURE, "--declaration", path)
    assert (code, error) == (
        2,
        f"features: {path}: there is no directory {path.parent}; create it, or name another file with --declaration\n",
    )


def test_the_mode_of_a_file_and_a_link_to_it_stay(small):
    small.chmod(0o600)
    link = small.with_name("link.yaml")
    link.symlink_to(small)
    write_addition(link, Addition(("features", "own"), "new", ENTRY))
    assert link.is_symlink()
    assert small.stat().st_mode & 0o777 == 0o600
    assert "new" in load_declaration(small)


@pytest.mark.parametrize(
    ("taken", "code"),
    [({}, 100), ({"a": 100}, 101), ({"a": 100, "b": 200}, 201), ({"a": 255}, 100), ({"a": 255, "b": 100}, 101)],
)
def test_a_kind_gets_a_code_that_none_has_had(taken, code):
    file = msgspec.structs.replace(read_or_start(Path("none.yaml")), kinds=taken)
    assert kind_addition(file, "none.yaml", "quiz").value == code


def test_a_kind_without_a_free_code_is_refused():
    taken = {f"k{code}": code for code in OWN_KIND_CODES}
    with pytest.raises(DeclarationError, match="none.yaml: key kinds: all 156 codes from 100 are taken; remove a kind"):
        kind_addition(msgspec.structs.replace(read_or_start(Path("none.yaml")), kinds=taken), "none.yaml", "quiz")


def test_the_cost_of_each_feature_is_measured(features, small):
    code, printed, error = features("cost", "--declaration", small, "--events", "50")
    assert (code, error) == (0, "")
    table, totals, note = printed.strip().split("\n\n")
    header, *lines = table.splitlines()
    assert re.split("  +", header) == ["name", "group", "µs per event"]
    assert {line.split()[0] for line in lines} == {"quizzes", "pages", "price"}
    costs = [float(line.split()[-1]) for line in lines]
    assert costs == sorted(costs, reverse=True)
    assert re.fullmatch(
        r"a pass over 64 events, without features +\d+\.\d\d\nall 3 features, with the pass +\d+\.\d\d", totals
    )
    assert "Measured on this machine" in note


def test_a_feature_of_the_whole_history_costs_more_than_one_of_the_event(small):
    declared = load_declaration(small)
    reports = []
    costs = measure(declared, declared.names, {"all": declared.names}, lambda *report: reports.append(report), 500)
    assert costs.features["pages"] > 0.05 > costs.features["price"] >= 0
    assert costs.sets["all"] > costs.empty_pass > 0
    assert {doing for doing, *_ in reports} == {"compiling the features", "measuring"}


def test_the_cost_of_own_columns_and_tiles_is_measured(features, small):
    columns = "{spread: {type: number}, plan: {type: category, names: [free, pro]}, shop: {type: identifier}}"
    expressions = ["mean(spread)", "last(plan)", "distinct(shop)", "sum(spread, over=30d, by=1d)"]
    lines = [f'  own{at}: {{f{at}: {{value: "{text}", unit: u, doc: d}}}}' for at, text in enumerate(expressions)]
    small.write_text("\n".join([f"columns: {columns}", "features:", *lines, ""]))
    code, printed, error = features("cost", "--declaration", small, "--events", "50")
    assert (code, error) == (0, "")
    assert set(names_of(printed.split("\n\n")[0])) == {"f0", "f1", "f2", "f3"}
    assert "a pass over 64 events and the tiles, without features" in printed


def test_the_cost_has_the_importance_in_a_model(features, tmp_path):
    bundle = make_bundle(tmp_path, "v1")
    _, printed, _ = features("cost", "--bundle", bundle, "--events", "20")
    table, totals, _ = printed.split("\n\n")
    shares = [line.split()[3] for line in table.splitlines()[1:] if "%" in line]
    assert names_of(table)[:3] != list(STANDARD.names[-3:])
    assert set(names_of(table)[: len(NAMES)]) == set(NAMES)
    assert len(shares) == len(NAMES)
    assert sum(float(share.rstrip("%")) for share in shares) == pytest.approx(100, abs=0.2)
    assert re.search(r"^the 3 features of the model, with the pass +\d", totals, re.MULTILINE)


def test_the_gain_of_a_lightgbm_model_is_shared_out(tmp_path):
    random = np.random.default_rng(1)
    matrix = random.random((500, len(NAMES)))
    data = lightgbm.Dataset(matrix, matrix[:, 1] > 0.5, feature_name=list(NAMES))
    booster = lightgbm.train({"objective": "binary", "num_threads": 1, "verbosity": -1}, data, 5)
    text = exact_in_float32(booster).model_to_string().encode()
    changes = {XGBOOST_FILE: None, EXPORT_FILE: None, WARM_UP_FILE: None, LIGHTGBM_FILE: text}
    shares = importance_shares(load_bundle(make_bundle(tmp_path, "v1", changes=changes), None))
    assert list(shares) == list(NAMES)
    assert shares[NAMES[1]] > 0.9
    assert sum(shares.values()) == pytest.approx(1)


@pytest.mark.parametrize("kind", ["logistic", "blend"])
def test_the_importance_in_a_regression_is_its_share_in_the_coefficients(tmp_path, kind):
    matrix = np.random.default_rng(1).random((500, len(NAMES)), np.float32)
    family = FAMILIES[kind]
    rows = FitRows(matrix, matrix[:, 1] > 0.5, np.ones(500))
    model = family.fit(rows, Fitting(NAMES, {**family.defaults, "C": 1.0}, rounds=5, threads=1))
    changes = {XGBOOST_FILE: None, EXPORT_FILE: None, WARM_UP_FILE: None, model.file: model.content()}
    shares = importance_shares(load_bundle(make_bundle(tmp_path, "v1", changes=changes), None))
    assert list(shares) == list(NAMES)
    assert shares[NAMES[1]] > 0.7
    assert sum(shares.values()) == pytest.approx(1)


def test_the_importance_in_a_remote_model_is_not_known(features, tmp_path):
    endpoint = msgspec.json.encode(Endpoint(url="http://127.0.0.1:1", model="m"))
    changes = {XGBOOST_FILE: None, EXPORT_FILE: None, ENDPOINT_FILE: endpoint}
    code, printed, _ = features("cost", "--bundle", make_bundle(tmp_path, "v1", changes=changes), "--events", "20")
    assert code == 0
    assert "importance" not in printed.splitlines()[0]
    assert printed.endswith("The model is remote: the importance of its features is not known here.\n")


@pytest.mark.parametrize(("after_seconds", "is_shown"), [(0.0, True), (60.0, False)])
def test_progress_is_shown_of_what_takes_long(capfd, monkeypatch, after_seconds, is_shown):
    monkeypatch.setenv("FORCE_COLOR", "1")  # as on a terminal
    with late_progress(after_seconds) as report:
        report("compiling the features")
        printed, said = capfd.readouterr()
        deadline = time.monotonic() + 30 * is_shown  # another thread shows it
        while "compiling the features" not in said and time.monotonic() < deadline:
            time.sleep(0.01)
            said += capfd.readouterr().err
        report("measuring", 1, 2)
    printed, said = (before + after for before, after in zip((printed, said), capfd.readouterr()))
    assert printed == ""
    assert ("compiling the features" in said) == is_shown


OF_PYTHON = """\
features:
  own:
    spread: {python: tests.support.own_functions.price_spread, unit: currency, doc: spread}
"""


def test_functions_are_compared_with_plain_python(features, tmp_path):
    path = tmp_path / "features.yaml"
    path.write_text(OF_PYTHON)
    code, out, _ = features("check", "--declaration", path)
    assert code == 0
    assert re.fullmatch(
        r".*: 1 features, 1 of them Python functions\n  spread: \d+ events, 0 without a value: equal\n", out
    )


def test_a_function_that_is_another_one_when_compiled_is_told(features, tmp_path):
    path = tmp_path / "features.yaml"
    path.write_text(OF_PYTHON.replace("price_spread", "overflows"))
    code, out, _ = features("check", "--declaration", path)
    assert code == 1
    assert "DIFFER, such as event 0: " in out


def test_a_declaration_without_functions_is_checked_in_a_moment(features, small):
    assert features("check", "--declaration", small)[:2] == (0, f"{small}: 3 features, 0 of them Python functions\n")
