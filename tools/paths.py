"""Paths in a checkout of this project. Uses only the standard library: tools.doctor runs before an install."""

from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
CONF = PROJECT / "conf" / "local.yaml"
JARS = PROJECT / "build" / "jars"
#: The directory of the stack that `make up` starts and `make demo KEEP=1` leaves running.
STACK = PROJECT / "build" / "local"
