"""Identifiers in records: what is one, and its hash."""

from zlib import crc32

from crc32c import crc32c

_NIL_UUID = "00000000-0000-0000-0000-000000000000"
_SHORT = frozenset(
    ("undefined", "null", "none", "nil", "nan", "na", "n/a", "(not set)", "not set", "unknown", "anonymous", "guest",
     "-", "-1", "0", "false", "true", "test", "[object object]")
)  # fmt: skip
#: What programs write where they have no id, in small letters.
PLACEHOLDERS = _SHORT | {_NIL_UUID}
_LONGEST = max(map(len, _SHORT))


def identifies(text: str | None) -> bool:
    """Whether a text is an id: neither missing nor blank nor a placeholder.

    >>> identifies("e-1"), identifies("(not set)"), identifies(" "), identifies(None)
    (True, False, False, False)
    """
    if not text:
        return False
    if len(text) > _LONGEST:
        return text != _NIL_UUID and not text.isspace()
    return bool(bare := text.strip()) and bare.lower() not in _SHORT


def hash_id(identifier: str) -> int:
    """A hash of 64 bits that is never 0: two CRCs by different polynomials, which take half the time of BLAKE2b."""
    text = identifier.encode()
    return crc32(text) << 32 | crc32c(text) or 1
