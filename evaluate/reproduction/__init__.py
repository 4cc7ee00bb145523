"""The papers' tables and figures: what each takes, and how it is reported."""
