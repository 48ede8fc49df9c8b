"""Galleries of catalogues: static pages with an image of every galaxy."""
