"""`make conformance CLIENT='COMMAND' ARGS='--only resume'`."""

import sys

from conformance.runner import main

sys.exit(main())
