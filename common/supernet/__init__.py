"""Search cells and the supernet: with nothing overridden, first-order DARTS."""
