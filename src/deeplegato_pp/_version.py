"""Version of the package, which is recorded in every table, checkpoint and model."""

__version__ = "0.2.0"
