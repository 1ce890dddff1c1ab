"""What all commands have in common: rules on parameters, options with several values, errors as a line and a code."""

from pathlib import Path

import click
import pytest

from udfs.config.command_line import (
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    EXIT_USAGE,
    Command,
    Group,
    Value,
    ValuesOption,
    conf_option,
    run,
    set_option,
)


def given_to(*options, arguments, **rules) -> tuple[int, dict | None]:
    """The exit code of a command with these options, and the values that it gets."""
    values = []
    command = Command("try", params=list(options), callback=lambda **given: values.append(given), **rules)
    return run(command, "python -m try", arguments), values[0] if values else None


A, B, C = (click.Option([f"--{name}"], type=float) for name in "abc")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--a", "0"], None),
        (["--b", "1", "--c", "0"], None),
        ([], "Either --a or --b is required."),
        (["--c", "1"], "Either --a or --b is required."),
        (["--a", "0", "--b", "0"], "--a and --b can't be combined."),
    ],
)
def test_exactly_one_of_some_parameters_must_be_given(arguments, error, capsys):
    code, given = given_to(A, B, C, arguments=arguments, exactly_one=("a", "b"))
    assert (code, given is None) == ((2, True) if error else (0, False))
    assert capsys.readouterr().err == (f"try: {error} Try `python -m try --help`.\n" if error else "")


@pytest.mark.parametrize(("arguments", "code"), [([], 0), (["--a", "0"], 0), (["--a", "0", "--b", "0"], 2)])
def test_at_most_one_of_some_parameters_may_be_given(arguments, code):
    assert given_to(A, B, arguments=arguments, at_most_one=("a", "b"))[0] == code


@pytest.mark.parametrize(
    ("arguments", "values"),
    [
        ([], ()),
        (["--share", "a=1"], ("a=1",)),
        (["--share", "a=1", "b=2", "c=3"], ("a=1", "b=2", "c=3")),
        (["--share", "a=1", "b=2", "--a", "1", "--share", "c=3"], ("a=1", "b=2", "c=3")),
        (["--share", "a=1", "--share", "b=2"], ("a=1", "b=2")),
        (["--share=a=1", "--a", "1"], ("a=1",)),
    ],
)
def test_an_option_takes_several_values(arguments, values):
    code, given = given_to(A, ValuesOption(["--share"]), arguments=arguments)
    assert (code, given["share"]) == (0, values)


@pytest.mark.parametrize(
    "arguments", [["--share"], ["--share", "--a", "1"], ["--share", "--help"], ["--a", "--share", "1"]]
)
def test_an_option_is_no_value_of_another(arguments, capsys):
    assert given_to(A, ValuesOption(["--share"]), arguments=arguments) == (2, None)
    assert f"Option '{arguments[0]}' requires an argument." in capsys.readouterr().err


def test_a_value_may_look_like_an_option():
    options = click.Option(["--why"]), click.Option(["--force"], is_flag=True)
    assert given_to(*options, arguments=["--why=--force"]) == (0, {"why": "--force", "force": False})
    assert given_to(*options, arguments=["--why", "-1"]) == (0, {"why": "-1", "force": False})


def read_even(text: str) -> int:
    if int(text) % 2:
        raise ValueError(f"expected an even number, got {text}")
    return int(text)


def test_a_value_that_its_function_refuses_is_named(capsys):
    option = click.Option(["--even"], type=Value("even", read_even), default=2)
    assert given_to(option, arguments=[]) == (0, {"even": 2})
    assert given_to(option, arguments=["--even", "4"]) == (0, {"even": 4})
    assert given_to(option, arguments=["--even", "5"]) == (2, None)
    assert "Invalid value for '--even': expected an even number, got 5." in capsys.readouterr().err


def failing(error: BaseException, **rules) -> Command:
    def fail() -> None:
        raise error

    return Command("fail", callback=fail, **rules)


@pytest.mark.parametrize(
    ("error", "code"),
    [(FileNotFoundError(2, "No such file"), EXIT_FAILED), (UnicodeError("of\n  two lines"), EXIT_USAGE)],
)
def test_an_expected_error_is_a_line_and_an_exit_code(error, code, capsys):
    assert run(failing(error, errors={OSError: EXIT_FAILED, ValueError: EXIT_USAGE}), "x", []) == code
    assert capsys.readouterr() == ("", f"fail: {' '.join(str(error).split())}\n")


def test_an_error_that_is_not_expected_is_raised():
    with pytest.raises(ZeroDivisionError):
        run(failing(ZeroDivisionError(), errors={ValueError: EXIT_USAGE}), "x", [])


def test_the_exit_code_after_ctrl_c_is_that_of_the_command(capsys):
    assert run(failing(KeyboardInterrupt()), "x", []) == EXIT_INTERRUPTED
    assert run(failing(KeyboardInterrupt(), interrupted=0), "x", []) == 0
    assert capsys.readouterr() == ("", "")


def test_a_group_reports_errors_of_its_subcommands_and_passes_their_exit_codes_on(capsys):
    group = Group("group", errors={ValueError: EXIT_USAGE})
    group.add_command(failing(ValueError("refused")), "fail")
    group.add_command(Command("three", callback=lambda: 3))
    assert run(group, "x", ["fail"]) == EXIT_USAGE
    assert capsys.readouterr().err == "group: refused\n"
    assert run(group, "x", ["three"]) == 3


@pytest.mark.parametrize("help_option", ["-h", "--help"])
def test_help_is_printed_and_ends_with_0(help_option, capsys):
    assert given_to(A, arguments=[help_option]) == (0, None)
    assert capsys.readouterr().out.startswith("Usage: python -m try [OPTIONS]")


def test_the_shared_options():
    @click.command("try", cls=Command)
    @conf_option("Settings.", default=Path("a.yaml"))
    @set_option("a=1")
    def command(conf: Path, overrides: tuple[str, ...]) -> int:
        assert (conf, overrides) == (Path("b.yaml"), ("a=1", "b=2"))
        return 7

    assert run(command, "x", ["--conf", "b.yaml", "--set", "a=1", "--set", "b=2"]) == 7
