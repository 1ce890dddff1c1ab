"""Progress on a terminal, of work that may be done before anyone wonders."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Timer

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

AFTER_SECONDS = 3.0

#: Called with what is being done and, if that is known, how much of it is done and how much there is.
Report = Callable[[str, int | None, int | None], None]


@contextmanager
def late_progress(after_seconds: float = AFTER_SECONDS) -> Iterator[Report]:
    """Show progress on standard error from some seconds on, if that is a terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    task = bar.add_task("", total=None)
    timer = Timer(after_seconds, bar.start)
    timer.daemon = True

    def report(doing: str, done: int | None = None, total: int | None = None) -> None:
        bar.update(task, description=doing, completed=done or 0, total=total)

    timer.start()
    try:
        yield report
    finally:
        timer.cancel()
        timer.join()
        bar.stop()
