"""Catalogues to look through and mark in a browser: the application of ``deeplegato view``."""
