"""`python -m kdlib`. Exit codes: 0, 1 if something is wrong, 2 if `score` found something anomalous."""

import sys

from kdlib.cli import app, expand
from kdlib.cli_score import Anomalous

try:
    app(expand(sys.argv[1:]), prog_name="python -m kdlib")
except (ValueError, OSError) as error:
    sys.exit(f"kdlib: {error}")
except Anomalous:
    raise
except SystemExit as stop:  # the parser ends with 2 where an option is mistyped
    sys.exit(1 if stop.code == 2 else stop.code)
