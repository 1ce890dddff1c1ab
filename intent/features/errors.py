"""Errors of the commands that are not those of the files that they read."""


class NoEventError(LookupError):
    """There is no such event; the message is one line that says where, and what to do."""
