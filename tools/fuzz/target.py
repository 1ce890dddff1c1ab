"""What a fuzz target is: a function of bytes, and the contract that it keeps for all of them."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """Code under test, called with an input.

    `run` returns what tells outcomes apart: an input with a new one joins the corpus. It may raise the exceptions of
    `refusals`, whose message must be one line of valid Unicode. Anything else that it raises is a crash, as is an input
    that takes too long or too much memory.
    """

    corpus: tuple[bytes, ...]
    run: Callable[[bytes], str]
    refusals: tuple[type[Exception], ...] = ()
