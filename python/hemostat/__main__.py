"""``python -m hemostat``: the command line."""

import sys

from hemostat.cli import main

sys.exit(main())
