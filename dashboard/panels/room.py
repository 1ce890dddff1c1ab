"""Room for a fixed number of models, KPIs or experiments, of which the newest are kept."""

from collections.abc import Callable
from typing import TypeVar

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


def has_room(kept: dict[_Key, _Value], key: _Key, most: int, newest_ms: Callable[[_Value], int], time_ms: int) -> bool:
    """Whether a record of `time_ms` under `key` can be kept.

    If there are `most` other keys, the one whose newest record is the oldest goes, unless the record is no newer.
    """
    if key in kept or len(kept) < most:
        return True
    oldest = min(kept, key=lambda known: newest_ms(kept[known]))
    if newest_ms(kept[oldest]) >= time_ms:
        return False
    del kept[oldest]
    return True
