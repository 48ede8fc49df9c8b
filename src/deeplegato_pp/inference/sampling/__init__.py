"""Samplers for general targets: importance sampling, adaptation, Markov chains."""
