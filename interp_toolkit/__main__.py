"""``python -m interp_toolkit``."""

import sys

from interp_toolkit.cli import run

if __name__ == "__main__":
    sys.exit(run())
