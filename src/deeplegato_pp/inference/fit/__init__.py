"""Searches for the best models and modes of galaxies."""
