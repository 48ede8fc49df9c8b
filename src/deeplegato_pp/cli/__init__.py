"""The command line: ``deeplegato``."""
