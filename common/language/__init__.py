"""Texts, recurrent cells and language models."""
