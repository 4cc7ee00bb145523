"""What every method shares; nothing in here knows a paper's search."""

import os

# Idle OpenMP threads sleep. By default they spin, and on a loaded machine the spinning ones take the
# cores that the working ones need. Read when torch loads, so commands import `common` first.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
