"""Catalogues to look through: static pages with a picture of every galaxy."""
