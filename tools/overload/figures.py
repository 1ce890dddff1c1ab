"""What an overload did, from samples taken all along and the latency of each score."""

from collections.abc import Sequence

import msgspec
import numpy as np

from tools.bench.rates import BenchError

WINDOW_S = 5.0
NO_ANSWER = "no answer"  # of the dashboard


class Sample(msgspec.Struct, frozen=True):
    """The state of the system at a moment, in seconds since 1970."""

    at_s: float
    clicks: int  # in the topic
    answers: int  # scores and dead letters
    rss: dict[str, int]  # bytes by process
    backlog: dict | None  # what the dashboard says of it

    @property
    def lag(self) -> int:
        return self.clicks - self.answers


class Plan(msgspec.Struct, frozen=True):
    """What was sent, in clicks per second: `before_s` at the normal rate, then the overload, then normal again."""

    capacity: float
    normal: float
    before_s: float
    overload: float
    overload_s: float
    hot: float

    @property
    def drained_lag(self) -> float:
        """A second's clicks are always on their way."""
        return max(self.normal, 100)


class Figures(msgspec.Struct, frozen=True):
    """The result; times in seconds, `None` where it did not happen."""

    sent_rate: float  # during the overload
    scored_rate: float  # during the overload
    largest_lag: int
    drain_s: float | None  # from the end of the overload until the lag was that of a second
    drain_rate: float | None
    recovered_s: float | None  # from then until p99 was within the budget, and stayed there
    p99_before_ms: float
    p99_largest_ms: float
    p99_after_ms: float | None
    rss_before: dict[str, int]
    rss_largest: dict[str, int]
    rss_after: dict[str, int]
    notices: dict[str, tuple[float, float]]  # by the dashboard's trend: first and last time, from the overload on


def overload_span(samples: Sequence[Sample], plan: Plan) -> tuple[int, int | None]:
    """The samples at the beginning and at the end of the overload, by what has been sent; None while it lasts."""
    sent_before = samples[0].clicks + plan.normal * plan.before_s
    sent_after = sent_before + plan.overload * plan.overload_s
    began = next((at for at, sample in enumerate(samples) if sample.clicks > sent_before), len(samples) - 1)
    return began, next((at for at, sample in enumerate(samples) if sample.clicks >= sent_after), None)


def drained(samples: Sequence[Sample], plan: Plan) -> int | None:
    """The first sample after the overload whose lag is small; None before that."""
    _, ended = overload_span(samples, plan)
    if ended is None:
        return None
    return next((at for at in range(ended, len(samples)) if samples[at].lag <= plan.drained_lag), None)


def p99_by_window(latency_ms: np.ndarray, received_s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The ends of the windows of WINDOW_S in which scores came, float64[n], and the p99 of these scores."""
    windows = np.floor(received_s / WINDOW_S).astype(np.int64)
    order = np.argsort(windows, kind="stable")
    starts, first = np.unique(windows[order], return_index=True)
    p99 = [float(np.percentile(values, 99)) for values in np.split(latency_ms[order], first[1:])]
    return (starts + 1) * WINDOW_S, np.array(p99)


def find_figures(
    samples: Sequence[Sample], plan: Plan, sent_ms: np.ndarray, received_ms: np.ndarray, budget_ms: float
) -> Figures:
    """The figures of a run; `sent_ms` and `received_ms` are of each score, float64[n].

    Raises BenchError when the overload has not ended.
    """
    began, ended = overload_span(samples, plan)
    if ended is None:
        raise BenchError("not all clicks of the overload were sent in time: the samples end before")
    empty = drained(samples, plan)
    first, last = samples[began], samples[ended]
    seconds = max(last.at_s - first.at_s, 1e-9)
    during = received_ms >= samples[0].at_s * 1000  # not while the capacity was measured
    ends_s, p99 = p99_by_window((received_ms - sent_ms)[during], received_ms[during] / 1000)
    before = p99[ends_s <= first.at_s]
    drain_s = drain_rate = recovered_s = p99_after = None
    if empty is not None:
        drain_s = samples[empty].at_s - last.at_s
        drain_rate = (samples[empty].answers - last.answers) / drain_s if drain_s else None
        later = ends_s > samples[empty].at_s
        slow = ends_s[later & (p99 > budget_ms)]
        well = ends_s[later & (ends_s > (slow.max() if len(slow) else -np.inf))]
        if len(well):
            recovered_s = max(0.0, well[0] - samples[empty].at_s)
            p99_after = float(np.median(p99[np.isin(ends_s, well)]))
    notices: dict[str, tuple[float, float]] = {}
    for sample in samples[began:]:
        if sample.backlog:
            at_s = sample.at_s - first.at_s
            notices[sample.backlog["trend"]] = (notices.get(sample.backlog["trend"], (at_s, 0))[0], at_s)
    return Figures(
        sent_rate=(last.clicks - first.clicks) / seconds,
        scored_rate=(last.answers - first.answers) / seconds,
        largest_lag=max(sample.lag for sample in samples),
        drain_s=drain_s,
        drain_rate=drain_rate,
        recovered_s=recovered_s,
        p99_before_ms=float(np.median(before)) if len(before) else float("nan"),
        p99_largest_ms=float(p99.max()),
        p99_after_ms=p99_after,
        rss_before=first.rss,
        rss_largest={name: max(sample.rss.get(name, 0) for sample in samples) for name in samples[-1].rss},
        rss_after=samples[-1].rss,
        notices=notices,
    )
