"""The version of the package, which every table, checkpoint and model records."""

__version__ = "0.2.0"
