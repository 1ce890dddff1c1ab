"""For developers of this project: local stack, demo, benchmark, release. Not in the wheel.

May import everything; only tests import it.
"""
