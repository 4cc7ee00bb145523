"""The loop of epochs and the steps of a bilevel search."""
