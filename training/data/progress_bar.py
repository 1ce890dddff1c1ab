"""What a terminal shows while something takes long: a bar for each step of it, or how long it has taken."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from training.data.preparation import Progress as Steps


@contextmanager
def progress_bar() -> Iterator[Steps]:
    """Show what the function it gives is called with, on stderr; nothing where that is no terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with _shown(*columns) as bar:
        tasks: dict[str, int] = {}

        def progress(step: str, done: int, total: int, events: int) -> None:
            if step not in tasks:
                tasks[step] = bar.add_task(step, total=total)
            bar.update(tasks[step], completed=done, description=f"{step} {events} events")

        yield progress


@contextmanager
def elapsed_time(doing: str) -> Iterator[None]:
    """Show on stderr for how long something has been going on; nothing where that is no terminal."""
    with _shown(SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()) as bar:
        bar.add_task(doing, total=None)
        yield


def _shown(*columns: ProgressColumn) -> Progress:
    console = Console(stderr=True)
    # Lines that are printed meanwhile are drawn above; those that go to a file have nothing to do with the terminal.
    return Progress(
        *columns,
        console=console,
        transient=True,
        redirect_stdout=sys.stdout.isatty(),
        disable=not console.is_terminal,
    )
