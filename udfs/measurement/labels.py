"""Labels, which models predict: whether an outcome follows an event of the same user within a horizon.

Two kinds of rows are not for training or evaluation: events that are the outcome themselves (a score then comes too
late to act on), and rows whose horizon had not passed when the data ended, positive or not: keeping only the
positives among them would overstate the rate.
"""

import re
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta

from udfs.config.durations import Duration, duration_ms
from udfs.config.reading import read_yaml
from udfs.config.text import one_line
from udfs.contracts.packed_events import EVENT, EVENT_KINDS, standard_kinds

#: The file of labels, in the directory of the settings file.
LABELS_FILE = "labels.yaml"
DECISECONDS = 10  # in a second: the unit of EVENT's engagement time

Kinds = Annotated[tuple[str, ...], Meta(min_length=1)]


class LabelError(ValueError):
    """A label that can't be used; the message is one line that names the label, the rule and the value."""


class Label(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """The definition of a positive event; conf/labels.yaml describes each key."""

    horizon: Duration
    session_gap: Duration | None = None
    events: Kinds | None = None
    absent: bool = False
    engagement_s: Annotated[float, Meta(gt=0)] | None = None
    page_views: Annotated[int, Meta(ge=1)] | None = None
    rows: Kinds | None = None

    def is_same_as(self, other: "Label") -> bool:
        """Whether both select the same rows and the same positives, however the two are written."""
        return self.meaning == other.meaning

    @property
    def meaning(self) -> tuple:
        """What `is_same_as` compares, written alike by all processes."""
        outcome = (sorted(set(self.events or ())), self.absent, self.engagement_s, self.page_views)
        return self.horizon_ms, self.session_gap_ms, outcome, sorted(set(self.scored_events))

    @property
    def horizon_ms(self) -> int:
        return duration_ms(self.horizon)

    @property
    def session_gap_ms(self) -> int | None:
        """The longest pause within a session, if only what follows in the same session counts."""
        return None if self.session_gap is None else duration_ms(self.session_gap)

    def amounts(self, records: np.ndarray) -> np.ndarray:
        """The amount that each of n events EVENT[n] adds to the outcome of earlier events, int64[n]."""
        if self.engagement_s is not None:
            return records["engagement_ds"].astype(np.int64)
        return np.isin(standard_kinds(records), _codes(self.events or ("page_view",))).astype(np.int64)

    def is_positive(self, amount: np.ndarray) -> np.ndarray:
        """Whether n events are positive, bool[n], given the sum of amounts within their horizons, int64[n]."""
        return (amount >= self.least) != self.absent

    @property
    def least(self) -> float:
        """The smallest sum of amounts that counts as an outcome."""
        return self.page_views or 1 if self.engagement_s is None else self.engagement_s * DECISECONDS

    @property
    def scored_events(self) -> tuple[str, ...]:
        """The names of events that are rows to train on and to evaluate: a score at the others comes too late."""
        return self.rows or tuple(name for name in EVENT_KINDS if name not in (self.events or ()))

    def __str__(self) -> str:
        if self.events is not None:
            outcome = f"{'no ' if self.absent else ''}{' or '.join(self.events)}"
        elif self.engagement_s is not None:
            outcome = f"{self.engagement_s:g} s of engagement or more"
        else:
            outcome = f"{self.page_views} page views or more"
        scored = f"after {' or '.join(self.rows)}" if self.rows else "after the event"
        session = f" in the same session (pauses of at most {self.session_gap})" if self.session_gap else ""
        return f"{outcome} by the same user{session} within {self.horizon} {scored}"


#: The wording of a label in bundles of format 1; the present wording is free to change.
_SENTENCE = re.compile(
    r"((?P<seconds>\d+(\.\d+)?(e\+\d+)?) s of engagement or more|(?P<pages>\d+) page views or more"
    r"|(?P<absent>no )?(?P<events>\w+( or \w+)*)) by the same user within (?P<horizon>\d+ ?\w+) "
    r"after (the event|(?P<rows>\w+( or \w+)*))"
)

CONVERTED = Label(events=("purchase",), horizon="30 min")


def find_label(text: str, path: Path) -> Label:
    """The label of that name in a YAML file, or the one that "EVENT within DURATION" describes. Raises LabelError."""
    described = re.fullmatch(r"(\w+) within (\d+ ?\w+)", text.strip())
    if described:
        return _checked({"events": [described[1]], "horizon": described[2]}, f"label {text!r}")
    entries = read_yaml(path, LabelError)
    if not isinstance(entries, dict) or text not in entries:
        names = ", ".join(map(str, entries)) if isinstance(entries, dict) else "no labels"
        raise LabelError(f'label {text!r}: not in {path.name} ({names}), nor "EVENT within DURATION"')
    return _checked(entries[text], f"{path}: key {text}")


def label_of_sentence(sentence: str) -> Label:
    """The label that a bundle of format 1 described in words. Raises LabelError."""
    parts = _SENTENCE.fullmatch(sentence)
    if parts is None:
        raise LabelError(f"this release cannot read the label {sentence!r}")
    content = {"horizon": parts["horizon"], "rows": parts["rows"] and parts["rows"].split(" or ")}
    if parts["seconds"]:
        content["engagement_s"] = float(parts["seconds"])
    elif parts["pages"]:
        content["page_views"] = int(parts["pages"])
    else:
        content |= {"events": parts["events"].split(" or "), "absent": parts["absent"] is not None}
    return _checked(content, f"label {sentence!r}")


def _checked(content: object, origin: str) -> Label:
    try:
        label = msgspec.convert(content, Label)
    except msgspec.ValidationError as error:
        raise LabelError(f"{origin}: {one_line(error)}") from None
    check_label(label, origin)
    return label


def check_label(label: Label, origin: str) -> None:
    """Raises LabelError for a label whose keys do not define an outcome; the message begins with `origin`."""
    for kind in (*(label.events or ()), *(label.rows or ())):
        if kind not in EVENT_KINDS:
            raise LabelError(f"{origin}: {kind!r} is not an event; expected one of {', '.join(EVENT_KINDS)}")
    outcomes = [name for name in ("events", "engagement_s", "page_views") if getattr(label, name) is not None]
    if len(outcomes) != 1:
        raise LabelError(
            f"{origin}: expected exactly one of events, engagement_s and page_views, got {outcomes or 'none'}"
        )
    if label.session_gap is not None and label.session_gap_ms >= label.horizon_ms:
        raise LabelError(
            f"{origin}: session_gap: must be less than the horizon of {label.horizon} (got {label.session_gap}): no "
            "pause within the horizon would be longer"
        )
    if label.absent and label.events is None:
        raise LabelError(f"{origin}: absent: requires events, none of which may follow")
    for name in ("horizon", "session_gap"):
        if (length := getattr(label, name)) is not None and duration_ms(length) == 0:
            raise LabelError(f"{origin}: {name}: must be more than 0")


def label_events(
    label: Label, user: np.ndarray, records: np.ndarray, data_end_ms: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Label n events, in any order, given as user code int[n] and EVENT[n].

    Returns whether each is positive, bool[n], and whether it is a row to train on and evaluate, bool[n]: of a kind that
    is scored, its horizon passed by `data_end_ms`, by default the time of the newest event.
    """
    time_ms, kind = records["time_ms"], standard_kinds(records)
    end_ms = time_ms.max(initial=0) if data_end_ms is None else data_end_ms
    follows = sum_after(user, time_ms, label.amounts(records), label.horizon_ms, label.session_gap_ms)
    positive = label.is_positive(follows)
    scored = np.isin(kind, _codes(label.scored_events))
    return positive, scored & (time_ms + label.horizon_ms <= end_ms)


def label_clicks(
    label: Label, user: np.ndarray, time_ms: np.ndarray, kind: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """`label_events` for events of which only user, time and kind are known, each [n]."""
    records = np.zeros(len(time_ms), EVENT)
    records["time_ms"], records["kind"] = time_ms, kind
    return label_events(label, user, records)


def sum_after(
    user: np.ndarray, time_ms: np.ndarray, amount: np.ndarray, horizon_ms: int, session_gap_ms: int | None = None
) -> np.ndarray:
    """The sum of the same user's amounts in (time, time + horizon], int64[n], for n events in any order.

    With `session_gap_ms`, only amounts before the user's first pause of more than that.
    """
    order = np.lexsort((time_ms, user))
    sorted_user, sorted_time = user[order], time_ms[order]
    total = np.concatenate([[0], np.cumsum(amount[order], dtype=np.int64)])
    # Searched within each user alone: one axis of time for all users could overflow.
    first = np.flatnonzero(np.diff(sorted_user, prepend=-1))
    group = np.cumsum(np.diff(sorted_user, prepend=-1) != 0) - 1
    start, end = first[group], np.append(first[1:], len(order))[group]
    after = _bisect_right(sorted_time, sorted_time, start, end)
    until = _bisect_right(sorted_time, sorted_time + horizon_ms, start, end)
    if session_gap_ms is not None:
        ends = np.append(np.flatnonzero(np.diff(sorted_time) > session_gap_ms) + 1, len(order))
        until = np.minimum(until, ends[np.searchsorted(ends, np.arange(len(order)), side="right")])
    sums = np.empty(len(order), np.int64)
    sums[order] = total[until] - total[after]
    return sums


def _bisect_right(values: np.ndarray, targets: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """For each k the first position in the sorted values[low[k]:high[k]] of a value above targets[k], else high[k]."""
    low, high = low.copy(), high.copy()
    while (searching := low < high).any():
        middle = (low + high) // 2
        goes_up = searching & (values[np.minimum(middle, len(values) - 1)] <= targets)
        low = np.where(goes_up, middle + 1, low)
        high = np.where(searching & ~goes_up, middle, high)
    return low


def _codes(kinds: tuple[str, ...]) -> list[int]:
    return [EVENT_KINDS.index(kind) for kind in kinds]
