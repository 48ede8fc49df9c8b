"""Reading and writing files: FITS images of any size, headers, atomic writes."""
