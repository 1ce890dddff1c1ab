"""A terminal shows that something goes on; nothing else does."""

from io import StringIO

import pytest
from rich.console import Console

from training.data import progress_bar


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_terminal_shows_how_long_it_takes_and_printed_lines_go_where_they_went(is_terminal, monkeypatch, capsys):
    screen = StringIO()
    console = Console(file=screen, force_terminal=is_terminal)
    monkeypatch.setattr(progress_bar, "Console", lambda stderr: console)
    with progress_bar.elapsed_time("training"):
        print("fold 1 of 5")
    assert capsys.readouterr().out == "fold 1 of 5\n"
    shown = screen.getvalue()
    assert ("training" in shown, "0:00:00" in shown) == (is_terminal, is_terminal)
