"""`python -m intent` is the command `intent`, for a checkout in which it is not installed."""

import sys

from intent.cli import main

if __name__ == "__main__":
    sys.exit(main(program="python -m intent"))
