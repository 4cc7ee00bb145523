"""PR-DARTS: prune and replace NAS (Laube and Zell)."""
