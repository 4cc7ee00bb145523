"""What every method shares; nothing in here knows a paper's search."""
