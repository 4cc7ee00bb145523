"""Genotypes and their networks."""
