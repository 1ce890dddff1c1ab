"""Progress of a replay: a bar on a terminal, otherwise a line from time to time."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from training.data.sources import Record

REDRAW_SECONDS = 0.2
LINE_SECONDS = 10.0

#: The total number of records, given how many were sent; None if it is unknown.
Total = Callable[[int], float | None]


@contextmanager
def shown_progress(records: Iterable[Record], what: str, total: Total, console: Console) -> Iterator[Iterator[Record]]:
    """`records`, with progress shown on `console` as they are taken."""
    if not console.is_terminal:
        yield _counted(records, lambda sent, rate: print_line(console, what, sent, rate, total(sent)), LINE_SECONDS)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.completed:,.0f} sent, {task.fields[rate]:,.0f}/s"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(what, total=None, rate=0.0)
        yield _counted(
            records,
            lambda sent, rate: progress.update(task, completed=sent, total=total(sent), rate=rate),
            REDRAW_SECONDS,
        )


def print_line(console: Console, what: str, sent: int, rate: float, total: float | None) -> None:
    """Print one line of progress, with the share and the time left when the total is known."""
    remaining = f", {100 * sent / total:.0f} %, {max(total - sent, 0) / rate:.0f} s left" if total and rate else ""
    console.print(f"{what}: {sent} sent, {rate:.0f}/s{remaining}", highlight=False, soft_wrap=True)


def _counted(
    records: Iterable[Record],
    show: Callable[[int, float], None],
    interval: float,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Record]:
    """Yield `records`; call `show` with their number and rate per second, every `interval` seconds and at the end."""
    started = clock()
    due = started + interval
    sent = 0
    for sent, record in enumerate(records, 1):
        yield record
        now = clock()
        if now >= due:
            show(sent, sent / (now - started))
            due = now + interval
    elapsed = clock() - started
    show(sent, sent / elapsed if elapsed else 0.0)
