"""The command `intent`: its table of subcommands, help, completion and the wheel's entry point."""

import inspect
import os
import re
import shlex
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from configparser import ConfigParser
from importlib import import_module
from pathlib import Path
from zipimport import zipimporter

import click
import pytest
from click.shell_completion import ShellComplete

from intent.cli import SUBCOMMANDS, command, main
from tests.support.command_lines import ParsedError, stop_after_parsing
from udfs.config.command_line import ENTRY_POINT

PROJECT = Path(__file__).parents[3]
#: What no help and no completion of a subcommand's name may import: each takes from a tenth of a second to seconds.
HEAVY = (
    "dashboard",
    "jobs",
    "kafka",
    "numba",
    "numpy",
    "pandas",
    "pyflink",
    "sklearn",
    "training",
    "uvicorn",
    "xgboost",
)


def contexts(ctx: click.Context) -> Iterator[click.Context]:
    """The context of a command, and those of all its subcommands."""
    yield ctx
    if isinstance(ctx.command, click.Group):
        for name in ctx.command.list_commands(ctx):
            yield from contexts(click.Context(ctx.command.get_command(ctx, name), info_name=name, parent=ctx))


CONTEXTS = [pytest.param(ctx, id=ctx.command_path) for ctx in contexts(click.Context(command, info_name=ENTRY_POINT))]


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_the_table_has_the_name_and_the_short_help_of_each_command(name):
    module, short_help = SUBCOMMANDS[name]
    found = import_module(module).command
    assert (found.name, found.get_short_help_str(limit=1_000)) == (name, short_help)


def test_a_line_of_the_help_is_wide_enough_for_each_short_help():
    indented = max(map(len, SUBCOMMANDS)) + len("    ")
    assert max(len(short_help) for _, short_help in SUBCOMMANDS.values()) <= 80 - 2 - indented


@pytest.mark.parametrize("ctx", CONTEXTS)
def test_help_is_a_sentence_with_examples_and_describes_each_parameter(ctx):
    summary, *rest = inspect.cleandoc(ctx.command.help).split("\n\n")
    assert re.fullmatch(r"[A-Z][^\n.]*\.", summary)
    assert any(paragraph.startswith("\b\nExamples:\n") for paragraph in rest)
    for param in ctx.command.params:
        assert re.fullmatch(r"[A-Z`].*\.", param.help or ""), param.name


@pytest.mark.parametrize("ctx", CONTEXTS)
def test_examples_are_accepted(ctx, monkeypatch):
    examples = re.findall(r"^    (intent .*)$", ctx.get_help(), re.MULTILINE)
    assert examples
    stop_after_parsing(monkeypatch)
    for example in examples:
        _, *arguments = shlex.split(example.split(" | ")[0])
        assert example.startswith(ctx.command_path)
        if arguments[-1:] == ["--help"]:
            assert main(arguments) == 0
        else:
            with pytest.raises(ParsedError):
                main(arguments)


def test_examples_call_the_command_as_it_was_called(capsys):
    assert main(["promote", "stop", "--help"], program="python -m intent") == 0
    assert "    python -m intent promote stop v2 --registry" in capsys.readouterr().out
    assert import_module("training.promote").main(["stop", "--help"]) == 0
    assert "    python -m training.promote stop v2 --registry" in capsys.readouterr().out


def imported_after(code: str, **environment: str) -> tuple[str, list[str]]:
    """The output of a program that uses `intent.cli`, and the heavy modules that it imported."""
    report = "import atexit, sys; atexit.register(lambda: print('\\nimported', *sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", f"{report}; import intent.cli; {code}"],
        cwd=PROJECT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    printed, _, modules = done.stdout.rpartition("\nimported ")
    return printed, [name for name in modules.split() if name in HEAVY]


def test_help_imports_no_subcommand():
    printed, heavy = imported_after("sys.exit(intent.cli.main(['--help']))")
    assert heavy == []
    assert all(f"  {name} " in printed for name in SUBCOMMANDS)


def test_completion_of_a_subcommand_imports_none():
    environment = {"_INTENT_COMPLETE": "bash_complete", "COMP_WORDS": "intent re", "COMP_CWORD": "1"}
    printed, heavy = imported_after("intent.cli.main()", **environment)
    assert heavy == []
    assert printed.split() == ["plain,replay", "plain,requeue", "plain,retrain", "plain,remote-bundle"]


def test_bash_gets_its_completion():
    printed, heavy = imported_after("intent.cli.main()", _INTENT_COMPLETE="bash_source")
    assert heavy == []
    assert "complete -o nosort -F _intent_completion intent" in printed


@pytest.mark.parametrize(
    ("typed", "incomplete", "expected"),
    [
        (["promote"], "st", ["stage", "start", "stop"]),
        (["promote", "start", "v2"], "--at", ["--at-most"]),
        (["replay"], "--ra", ["--rate"]),
        (["replay", "--times"], "", ["keep", "shift"]),
        (["peek", "scores"], "dead", ["dead_letters"]),
        (["requeue", "--reason"], "time", ["time_too_old", "time_in_future"]),
        (["experiment", "report", "--shares", "champion=1"], "--tr", ["--treatment"]),
        (["features"], "", ["list", "add", "check", "cost", "explain"]),
        (["features"], "--h", ["--help"]),
        (["features", "list"], "--ex", ["--expressions"]),
        ([], "--h", ["--help"]),
    ],
)
def test_subcommands_options_and_values_are_completed(typed, incomplete, expected):
    completion = ShellComplete(command, {}, ENTRY_POINT, "_INTENT_COMPLETE")
    assert [item.value for item in completion.get_completions(typed, incomplete)] == expected


def test_a_subcommand_runs_as_its_module_does(tmp_path, capsys):
    arguments = ["--conf", str(tmp_path / "none.yaml")]
    for name, module in (("doctor", "jobs.ops.doctor.__main__"), ("dashboard", "dashboard.__main__")):
        assert main([name, *arguments]) == import_module(module).main(arguments) == 2
        through_intent, alone = capsys.readouterr().err.splitlines()
        assert through_intent == alone
        assert alone.startswith(f"{name}: {tmp_path}/none.yaml: no such file")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["replya"], "intent: No such command 'replya'. Did you mean 'replay'? Try `intent --help`.\n"),
        (["promote", "stop"], "promote stop: Missing argument 'VERSION'. Try `intent promote stop --help`.\n"),
        (["--quiet"], "intent: No such option '--quiet'. Try `intent --help`.\n"),
    ],
)
def test_an_unusable_command_line_is_refused_in_a_line(arguments, error, capsys):
    assert main(arguments) == 2
    assert capsys.readouterr() == ("", error)


@pytest.mark.parametrize("arguments", [[], ["promote"], ["experiment"]])
def test_without_a_subcommand_the_help_is_shown(arguments, capsys):
    assert main(arguments) == 2
    assert "Commands:" in capsys.readouterr().err


def test_every_command_of_the_packages_is_a_subcommand():
    commands = {
        ".".join(path.relative_to(PROJECT).with_suffix("").parts)
        for package in ("dashboard", "intent/features", "jobs", "training", "udfs")
        for path in (PROJECT / package).rglob("*.py")
        if re.search(r"^@click\.command\(", path.read_text(), re.MULTILINE)
    }
    assert commands == {module for module, _ in SUBCOMMANDS.values()}


@pytest.mark.slow
def test_the_wheel_has_the_entry_point_and_bytecode(tmp_path):
    build = [sys.executable, "setup.py", "--quiet", "build", "--build-base", str(tmp_path)]
    subprocess.run(
        [*build, "egg_info", "--egg-base", str(tmp_path), "bdist_wheel", "--dist-dir", str(tmp_path / "dist")],
        cwd=PROJECT,
        check=True,
        capture_output=True,
    )
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as files:
        names = files.namelist()
        entry_points = ConfigParser()
        (declared,) = (name for name in names if name.endswith(".dist-info/entry_points.txt"))
        entry_points.read_string(files.read(declared).decode())
    assert dict(entry_points["console_scripts"]) == {"intent": "intent.cli:main"}
    assert {"intent/__init__.py", "intent/__main__.py", "intent/cli.py", "udfs/config/command_line.py"} <= set(names)
    assert {f"{name}c" for name in names if name.endswith(".py")} <= set(names)
    # Code that Python compiles itself has the path inside the wheel.
    assert zipimporter(f"{wheel}/intent").get_code("cli").co_filename == "intent/cli.py"
