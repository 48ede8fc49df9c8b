"""Rendering of Sérsic profiles and point sources with a PSF, in Fourier space."""
