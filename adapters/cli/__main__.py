"""`python -m rowloop.adapters.cli`."""

import sys

from .commands import main

sys.exit(main())
