"""Command line: ``deeplegato``."""
