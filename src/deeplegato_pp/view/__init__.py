"""Interactive view of catalogues in a browser: the application of ``deeplegato view``."""
