"""File input and output: FITS images of any size, headers, atomic writes."""
