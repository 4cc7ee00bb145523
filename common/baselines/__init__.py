"""The baseline of every paper: DARTS."""
