"""Pictures of cells, searches and runs."""
