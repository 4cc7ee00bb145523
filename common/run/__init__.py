"""A command's flags, start, run folder and checkpoints."""
