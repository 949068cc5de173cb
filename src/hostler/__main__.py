"""``python -m hostler`` is the command ``hostler``."""

import sys

from hostler.core.cli import main

if __name__ == "__main__":
    sys.exit(main())
