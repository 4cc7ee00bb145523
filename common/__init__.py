"""What every method shares; nothing in here knows a paper's search."""

import os

# Idle OpenMP threads spin briefly, then sleep. GNU's default spins so long that on a loaded machine
# they take the cores that the working ones need; never spinning makes a free machine slower. Read
# when torch loads, so commands import `common` first.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")
