"""Texts of messages. Imports nothing, so that every command starts fast."""


def one_line(problem: object) -> str:
    """A problem's text without line breaks.

    >>> one_line(ValueError("no such\\n  key"))
    'no such key'
    """
    return " ".join(str(problem).split())
