"""`python -m api.cli` is `hdb`."""

import sys

from api.cli.program import main

sys.exit(main())
