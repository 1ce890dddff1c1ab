"""Texts of messages. Imports nothing, so that every command starts fast."""

#: The end of a text in a pattern. With `$` alone, Python also takes a text with a line break behind it.
END = r"$(?!\n)"


def one_line(problem: object) -> str:
    """A problem's text without line breaks.

    >>> one_line(ValueError("no such\\n  key"))
    'no such key'
    """
    return " ".join(str(problem).split())
