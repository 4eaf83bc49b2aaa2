"""`python -m kdlib`."""

import sys

from kdlib.cli import app, expand

try:
    app(expand(sys.argv[1:]), prog_name="python -m kdlib")
except (ValueError, OSError) as error:
    sys.exit(f"kdlib: {error}")
