"""PC-DARTS: Partial Channel Connections for Memory-Efficient Architecture Search (ICLR 2020)."""
