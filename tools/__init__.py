"""Tools for developers of this project: local stack, demo, benchmark, release, generated docs. Not in the wheel.

May import everything; only tests import it.
"""
