"""One module per program: `fit(galaxy, method)` returns a `Fit`."""
