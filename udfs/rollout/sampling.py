"""A deterministic sample of the users."""

from zlib import crc32


def in_sample(user_id: str, share: float) -> bool:
    """Whether a user belongs to a share (0 to 1) of all users: always the same ones, and a larger share keeps them.

    >>> in_sample("anyone", 0.0), in_sample("anyone", 1.0)
    (False, True)
    """
    return crc32(user_id.encode()) < share * 2**32
