"""The renderer: Sérsic profiles and point sources under a PSF, in Fourier space."""
