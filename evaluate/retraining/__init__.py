"""Networks of a genotype, trained from scratch."""
