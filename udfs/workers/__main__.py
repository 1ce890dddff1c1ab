"""Started by an operator, with the directory of the files that both share."""

import sys
from pathlib import Path

from udfs.workers.server import main

if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
