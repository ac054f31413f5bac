"""`python -m hyperdreambooth.cli` is `hdb`."""

import sys

from hyperdreambooth.cli.program import main

sys.exit(main())
