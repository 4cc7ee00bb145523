"""Genotypes and the networks they stand for."""
