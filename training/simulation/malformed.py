"""Malformed records: one way to break the clicks contract for each reject reason."""

from collections.abc import Callable, Iterable, Iterator

import msgspec
import numpy as np

from udfs.contracts.rejects import Reason

DAY_MS = 86_400_000


def with_broken(clicks: Iterable[dict], share: float, seed: int = 1) -> Iterator[tuple[bytes, Reason | None]]:
    """Encode clicks and insert broken copies, so that these make up about `share` of the result.

    Yields the bytes and, for a broken copy, the expected reject reason; the reasons take turns. Every click is kept.
    Raises ValueError when share is not in [0, 1).
    """
    if not 0 <= share < 1:
        raise ValueError(f"share of broken records must be at least 0 and below 1 (got {share})")
    rng = np.random.default_rng(seed)
    reasons = list(BREAK)
    broken = 0
    for click in clicks:
        yield msgspec.json.encode(click), None
        for _ in range(rng.geometric(1 - share) - 1):
            reason = reasons[broken % len(reasons)]
            broken += 1
            yield BREAK[reason](click), reason


def _changed(click: dict, **changes) -> bytes:
    return msgspec.json.encode(click | changes)


def _with_text(click: dict, field: str, text: bytes) -> bytes:
    """The click with JSON text in it that no value encodes to."""
    return _changed(click, **{field: "?"}).replace(b'"?"', text)


#: How to break a click so that it is rejected for a given reason, under the default limits.
BREAK: dict[Reason, Callable[[dict], bytes]] = {
    Reason.EMPTY_RECORD: lambda click: b"",
    Reason.TOO_LARGE: lambda click: _changed(click, note="x" * 1_000_000),
    Reason.INVALID_UTF8: lambda click: _with_text(click, "item_id", b'"\xff\xfe"'),
    Reason.INVALID_JSON: lambda click: _changed(click)[:-1],
    Reason.NOT_FINITE: lambda click: _with_text(click, "price", b"NaN"),
    Reason.TOO_DEEP: lambda click: _with_text(click, "note", b"[" * 20_000 + b"]" * 20_000),
    Reason.NOT_AN_OBJECT: lambda click: msgspec.json.encode([click]),
    Reason.MISSING_FIELD: lambda click: msgspec.json.encode({k: v for k, v in click.items() if k != "user_id"}),
    Reason.EMPTY_FIELD: lambda click: _changed(click, user_id=""),
    Reason.WRONG_TYPE: lambda click: _changed(click, event_time="yesterday"),
    Reason.TOO_LONG: lambda click: _changed(click, user_id="u" * 1_000),
    Reason.OUT_OF_RANGE: lambda click: _changed(click, price=-1.0),
    Reason.TIME_TOO_OLD: lambda click: _changed(click, event_time=click["event_time"] - 400 * DAY_MS),
    Reason.TIME_IN_FUTURE: lambda click: _changed(click, event_time=click["event_time"] + 2 * DAY_MS),
}
