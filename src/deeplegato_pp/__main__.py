"""Runs the command line as ``python -m deeplegato_pp``."""

from __future__ import annotations

import sys

from deeplegato_pp.cli.app import main

if __name__ == "__main__":
    sys.exit(main())
