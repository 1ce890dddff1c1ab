"""The tutorial of own features does what it says, and the pages and files about features hold what they show."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from jobs.common.serving import find_serving
from jobs.common.settings import load_settings
from tools.paths import PROJECT
from udfs.features.declaration_file import STANDARD, load_declaration
from udfs.models.bundle import BundleError, load_bundle

TUTORIAL = (PROJECT / "docs" / "own-features.md").read_text()
REFERENCE = (PROJECT / "docs" / "features.md").read_text()
FEATURES_FILE = PROJECT / "conf" / "features.yaml"
#: What training does on top of conf/training.yaml, so that the test takes seconds.
QUICK = {"model": "xgboost", "repeats": 0, "folds": 2, "rounds": 5, "compare": [], "threads": 1}


#: A block of code with its mark, and the file that a sentence before it says to write it to.
BLOCK = re.compile(r"(?:Write `([^`\n]+)`:\n\n)?^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
COMPARISONS = ("<", "<=", ">=", "==", "!=")


class Step(NamedTuple):
    """Files to write, then commands to run, and the lines that they print."""

    files: dict[str, str]
    commands: str
    shown: list[str]


def steps(page: str) -> list[Step]:
    """The steps of a page: commands are in blocks marked `sh`, and what they print is in blocks without a mark."""
    found, files = [], {}
    for name, mark, block in BLOCK.findall(page):
        if name:
            files[name] = block
        elif mark == "sh":
            found.append(Step(files, block, []))
            files = {}
        elif not re.match(r"intent |make ", block):
            found[-1].shown.extend(block.splitlines())
    return found


@pytest.fixture(scope="module")
def workshop(tmp_path_factory) -> Path:
    """A directory in which all steps of the tutorial have been done, up to those that need a cluster."""
    directory = tmp_path_factory.mktemp("tutorial")
    shutil.copytree(PROJECT / "conf", directory / "conf")
    settings = directory / "conf" / "training.yaml"
    settings.write_text(yaml.safe_dump(yaml.safe_load(settings.read_text()) | QUICK))
    path = f"{PROJECT / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"
    for step in steps(TUTORIAL):
        for name, content in step.files.items():
            (directory / name).write_text(content)
        ran = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", step.commands],
            cwd=directory, env=os.environ | {"PATH": path}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert ran.returncode == 0, f"{step.commands}{ran.stdout}{ran.stderr}"
        printed = {line.strip() for line in ran.stdout.splitlines()}
        assert [line for line in step.shown if line not in printed] == [], ran.stdout
    settings_of_job = next(block for name, _, block in BLOCK.findall(TUTORIAL) if name == "conf/quiz.yaml")
    (directory / "conf" / "quiz.yaml").write_text(settings_of_job)
    return directory


@pytest.mark.slow
def test_the_commands_of_the_tutorial_train_a_model_with_the_features(workshop):
    bundle = load_bundle(workshop / "models" / "quiz", 64)
    assert {"quizzes_24h", "since_quiz_s"} < set(bundle.manifest.features)
    assert len(bundle.manifest.features) == len(STANDARD.names) + 2


@pytest.mark.slow
def test_the_job_of_the_tutorial_accepts_the_model(workshop, monkeypatch):
    monkeypatch.chdir(workshop)
    serving = find_serving(load_settings(Path("conf", "quiz.yaml")))
    assert [len(bundle.manifest.features) for bundle in serving.bundles.values()] == [107]


@pytest.mark.slow
def test_a_job_that_does_not_know_the_event_refuses_the_model(workshop, monkeypatch):
    monkeypatch.chdir(workshop)
    with pytest.raises(BundleError, match=r"quiz_completed.*clicks\.declaration"):
        find_serving(load_settings(Path("conf", "quiz.yaml"), ["clicks.declaration=null"]))


def test_the_file_of_features_adds_nothing_as_it_is():
    declared = load_declaration(FEATURES_FILE)
    assert declared.features == STANDARD.features
    assert declared.layout == STANDARD.layout


def test_the_examples_in_the_file_of_features_are_valid(tmp_path):
    text = FEATURES_FILE.read_text()
    examples = re.sub(r"^# ((?: *[\w{}]+:|windows).*)$", r"\1", text.split("extends: standard")[1], flags=re.MULTILINE)
    file = tmp_path / "features.yaml"
    file.write_text("extends: standard\n" + examples.partition("\n")[2].replace("session_gap", "# session_gap"))
    names = load_declaration(file).names[len(STANDARD.names) :]
    assert names == ("quizzes_1h", "quizzes_24h", "since_quiz_s", "value_to_cart_mean")


@pytest.mark.parametrize("block", [block for _, mark, block in BLOCK.findall(REFERENCE) if mark == "yaml"])
def test_the_files_of_the_reference_are_valid(block, tmp_path, monkeypatch):
    (function,) = (code for _, mark, code in BLOCK.findall(REFERENCE) if mark == "python")
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "features.py").write_text(function)
    monkeypatch.syspath_prepend(tmp_path)
    file = tmp_path / "features.yaml"
    file.write_text(block)
    if block.startswith("clicks:"):  # settings of a job
        assert list(yaml.safe_load(block)["clicks"]) == ["declaration"]
    else:
        load_declaration(file)


def shown_expressions() -> list[str]:
    """The expressions of the reference, and its conditions as counts of them."""
    tables = re.findall(r"^\| ([\w`=]+) \|.*\n\|---.*\n((?:\|.*\n)+)", REFERENCE, re.MULTILINE)
    found = []
    for head, rows in tables:
        cells = re.findall(r"^\| (.*?) \|", rows, re.MULTILINE)
        codes = [code for cell in cells for code in re.findall(r"`([^`]+)`", cell) if "..." not in code]
        found += [code for code in codes if head in ("expression", "user", "profile")]
        found += [f"count({code})" for code in codes if head == "condition" and code not in COMPARISONS]
        found += [f"now.{code}" for code in codes if head == "column" and code not in ("item", "category", "page")]
        found += [f"count(over={code})" for code in codes if head == "`over=`"]
    return found


def test_there_are_expressions_in_the_reference():
    assert len(shown_expressions()) > 30


@pytest.mark.parametrize("expression", shown_expressions())
def test_the_expressions_of_the_reference_can_be_read(expression, tmp_path):
    file = tmp_path / "features.yaml"
    entry = {"value": expression, "unit": "any", "doc": "as in the reference"}
    file.write_text(yaml.safe_dump({"kinds": {"quiz_completed": 100}, "features": {"shown": {"shown": entry}}}))
    load_declaration(file)
