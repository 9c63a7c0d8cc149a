"""``python -m segwright``: the command, for where its script is not on the path."""

import sys

from segwright.cli import main

if __name__ == "__main__":
    sys.exit(main())
