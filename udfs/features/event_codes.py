"""Event codes: what a sequence model sees of one packed event, as one integer.

`event(K)` in an expression is the code of the K-th event before the scored one. A code has no identifiers, which a
model would learn by heart, and no absolute times. It is made of whole numbers alone, so training and serving agree bit
by bit, and a column of float32 holds it exactly.

code = (((kind * sizes of page_type + page_type) * sizes of gap + gap) * ...), the fields in the order of FIELDS.
"""

import math

import numpy as np

from udfs.contracts.packed_events import EVENT_KINDS, PAGE_TYPES

#: The fields of a code, and how many values each has. `kind` comes first, so that the events of a kind are a range of
#: codes; it leaves room for later kinds. Models have these sizes in their file: with others, they would be refused.
FIELDS = {
    "kind": 20,  # index into EVENT_KINDS; own kinds are `other`
    "page_type": 10,  # index into PAGE_TYPES
    "gap": 24,  # time since the event before it: 0 without one, else 1 + number of binary digits of the seconds
    "age": 24,  # time from it to the scored event: number of binary digits of the seconds
    "item": 3,  # 0: it or the scored event has none, 1: another one, 2: that of the scored event
    "category": 3,  # likewise
    "value": 16,  # 0: none, else 1 + number of binary digits of the whole value
}
#: The number of codes, and of those of one kind.
CODES = math.prod(FIELDS.values())
CODES_OF_KIND = CODES // FIELDS["kind"]

assert len(EVENT_KINDS) <= FIELDS["kind"]
assert len(PAGE_TYPES) <= FIELDS["page_type"]
assert CODES <= 2**24  # the whole numbers that float32 holds

#: The most events that expressions reach back.
MOST_EVENTS = 256


def fields_of(codes: np.ndarray) -> np.ndarray:
    """The fields of codes int64[...], int64[..., fields]."""
    fields = np.empty((*codes.shape, len(FIELDS)), np.int64)
    rest = codes
    for place, size in reversed(list(enumerate(FIELDS.values()))):
        rest, fields[..., place] = np.divmod(rest, size)
    return fields


def code_text(code: int) -> str:
    """A code in words, for people.

    >>> code_text(((((6 * 10 + 4) * 24 + 6) * 24 + 0) * 3 + 2) * 3 * 16)
    'add_to_cart on a product page, 16 s or more after the event before it'
    """
    kind, page_type, gap, age, *_ = fields_of(np.array(code)).tolist()
    text = EVENT_KINDS[kind] if kind < len(EVENT_KINDS) else "other"
    if page_type:
        text += f" on a {PAGE_TYPES[page_type]} page"
    if age:
        text += f", {_from(age)} before the scored event"
    if gap:
        text += f", {_from(gap - 1)} after the event before it"
    return text


def _from(digits: int) -> str:
    """The times whose seconds have a number of binary digits."""
    return f"{2 ** (digits - 1):,} s or more" if digits else "less than 1 s"
