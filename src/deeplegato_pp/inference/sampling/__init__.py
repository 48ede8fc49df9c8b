"""Samplers that know nothing of galaxies: importance, adaptation, chains."""
