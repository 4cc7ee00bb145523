"""SSD on a genotype's network (PC-DARTS, 4.5)."""
