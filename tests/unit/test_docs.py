"""What the docs link to is there, and the commands that they show can be given like that."""

import re
import runpy
import shlex
from pathlib import Path

import pytest

from tests.support.command_lines import ParsedError, stop_after_parsing

PROJECT = Path(__file__).parents[2]
PACKAGES = "dashboard|intent|jobs|tools|training|udfs"
PAGES = [PROJECT / "README.md", PROJECT / "CONTRIBUTING.md", *sorted((PROJECT / "docs").glob("*.md"))]
MAKEFILE = (PROJECT / "Makefile").read_text()
TEXTS = {page.relative_to(PROJECT).as_posix(): page.read_text().replace("\\\n", " ") for page in PAGES}
BLOCKS = {
    page: "\n".join(re.findall(r"^```\w*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)) for page, text in TEXTS.items()
}


def shown(pattern: str) -> list:
    """What a pattern finds in the blocks of code and in `code` in lines, each once, with its page."""
    found = {}
    for page, text in TEXTS.items():
        for code in (*BLOCKS[page].splitlines(), *re.findall(r"`([^`\n]+)`", text)):
            if match := re.search(pattern, code.split(" # ")[0]):
                found.setdefault(match[0].strip(), pytest.param(match, id=f"{page}: {match[0].strip()[:80]}"))
    return list(found.values())


@pytest.fixture
def parse_only(monkeypatch):
    """Arguments that a command accepts end in ParsedError, others in SystemExit."""
    stop_after_parsing(monkeypatch)


def understood(module: str, arguments: str, monkeypatch, capsys) -> None:
    """Give a module its arguments; where they say what may be given, as [--limit N] does, look for it in the help."""
    usage = "[" in arguments
    subcommands = re.match(r"(?:[a-z][a-z-]*(?: |$))*", arguments)[0].split() if module == "intent" else []
    given = [*subcommands, "--help"] if usage else shlex.split(arguments)
    if "--" not in arguments:  # named by its first words, as `git log` is
        given = [*given, "--help"]
    monkeypatch.setattr("sys.argv", [module, *given])
    with pytest.raises((ParsedError, SystemExit)) as ended:
        runpy.run_module(module, run_name="__main__")
    shows_help = given[-1] == "--help" and not ended.value.code if ended.type is SystemExit else False
    assert ended.type is ParsedError or shows_help, f"python -m {module} does not take {arguments}"
    said = capsys.readouterr().out
    assert not usage or [option for option in re.findall(r"--[\w-]+", arguments) if option not in said] == []


@pytest.mark.filterwarnings("ignore:.*found in sys.modules.*:RuntimeWarning")
@pytest.mark.parametrize("command", shown(rf"python -m ((?:{PACKAGES})[\w.]*)((?: +[^|]+)?)$"))
def test_a_module_takes_the_arguments_shown(command, parse_only, monkeypatch, capsys):
    if command[2].strip() or "." not in command[1]:
        understood(command[1], command[2], monkeypatch, capsys)
    else:
        module = PROJECT / command[1].replace(".", "/")  # named without saying how it is called
        assert module.with_suffix(".py").exists() or (module / "__main__.py").exists()


@pytest.mark.filterwarnings("ignore:.*found in sys.modules.*:RuntimeWarning")
@pytest.mark.parametrize("command", shown(r"flink run .*-pym (jobs\.\w+) -pyfs \S+(.*)$"))
def test_a_job_takes_the_arguments_shown(command, parse_only, monkeypatch, capsys):
    understood(command[1], command[2], monkeypatch, capsys)


@pytest.mark.filterwarnings("ignore:.*found in sys.modules.*:RuntimeWarning")
@pytest.mark.parametrize("command", shown(r"^intent ([a-z][^|]*)$"))
def test_the_entry_point_takes_the_arguments_shown(command, parse_only, monkeypatch, capsys):
    understood("intent", command[1], monkeypatch, capsys)


@pytest.mark.parametrize("command", shown(r"^make [a-z].*$"))
def test_a_target_of_make_and_its_variables_are_there(command):
    for word in shlex.split(command[0])[1:]:
        name, is_variable, _ = word.partition("=")
        assert re.search(rf"\$\((if )?{name}[),]" if is_variable else rf"^{name}:", MAKEFILE, re.MULTILINE), word


@pytest.mark.parametrize("page", TEXTS)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", TEXTS[page]):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = (PROJECT / page).parent / path if path else PROJECT / page
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", file.read_text(), re.MULTILINE)
            anchors = [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]
            assert anchor in anchors, target
