"""Searches for the best-fitting models and posterior modes of galaxies."""
