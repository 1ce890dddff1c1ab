"""The report of a run: how long each kind of fault took to recover from, and whether all records are right."""

from collections.abc import Sequence
from statistics import median

import msgspec


class Result(msgspec.Struct, frozen=True):
    """A fault that was caused, and the seconds from its beginning until clicks were answered again."""

    number: int
    kind: str
    lasted_s: float
    recovered_s: float


class Leg(msgspec.Struct, frozen=True):
    """Faults on one cluster, and the check of all records afterwards."""

    seed: int
    results: list[Result]
    clicks: int
    scores: int
    dead_letters: int
    outcomes: int
    sessions: int
    problems: list[str]


def markdown(seed: int, count: int, legs: Sequence[Leg], left_out: Sequence[str]) -> str:
    results = [result for leg in legs for result in leg.results]
    problems = [problem for leg in legs for problem in leg.problems]
    sums = {name: sum(getattr(leg, name) for leg in legs) for name in ("clicks", "scores", "dead_letters")}
    sums |= {name: sum(getattr(leg, name) for leg in legs) for name in ("outcomes", "sessions")}
    lines = [
        f"# {len(results)} of {count} faults, seed {seed}",
        "",
        "{clicks:,} clicks gave {scores:,} scores and {dead_letters:,} dead letters, {outcomes:,} outcomes and "
        "{sessions:,} sessions.".format(**sums),
        "",
        *(["**What is wrong:**", "", *(f"- {problem}" for problem in problems)] if problems else [_RIGHT]),
        "",
        "| fault | times | lasted, median | answered again after, median | worst |",
        "|---|---|---|---|---|",
    ]
    for kind in sorted({result.kind for result in results}):
        of_kind = [result for result in results if result.kind == kind]
        lasted, recovered = ([getattr(result, name) for result in of_kind] for name in ("lasted_s", "recovered_s"))
        lines.append(
            f"| {kind} | {len(of_kind)} | {median(lasted):.1f} s | {median(recovered):.1f} s | {max(recovered):.1f} s |"
        )
    if left_out:
        lines += ["", f"Left out, since they need root on Linux: {', '.join(left_out)}."]
    return "\n".join(lines) + "\n"


_RIGHT = (
    "Each accepted click has exactly one committed score, with the value of an offline run. Each rejected one has one "
    "dead letter, with its reason. Outcomes and sessions are those of a batch."
)
