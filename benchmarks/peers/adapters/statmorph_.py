"""statmorph (Rodriguez-Gomez et al. 2019, arXiv:1809.08239): the Sérsic fit beside its statistics.

It states no errors. The segment is what stands 1.5 sigma above the sky after smoothing, as its
tutorial makes it.
"""

from __future__ import annotations

import numpy as np
import statmorph
from astropy.convolution import Gaussian2DKernel, convolve
from galaxy import Fit, Galaxy, sersic_flux
from scipy.ndimage import label


def fit(galaxy: Galaxy, method: str) -> Fit:
    """Measures the segment about the start's centre."""
    smooth = convolve(np.where(galaxy.mask, 0.0, galaxy.image), Gaussian2DKernel(1.5))
    labels, _ = label(smooth > 1.5 * np.median(galaxy.sigma[~galaxy.mask]) / 3.0)
    height, width = galaxy.image.shape
    place = (
        int(np.clip(round(galaxy.start.y), 0, height - 1)),
        int(np.clip(round(galaxy.start.x), 0, width - 1)),
    )
    if labels[place] == 0:
        raise ValueError("no segment at the galaxy's centre")
    segment = (labels == labels[place]).astype(int)
    found = statmorph.source_morphology(
        galaxy.image, segment, weightmap=galaxy.sigma, psf=galaxy.psf, mask=galaxy.mask
    )[0]
    ratio = 1.0 - found.sersic_ellip
    amplitude, radius, index = found.sersic_amplitude, found.sersic_rhalf, found.sersic_n
    return Fit(
        {
            "flux": sersic_flux(amplitude, radius, index, ratio),
            "radius": radius,
            "index": index,
            "axis_ratio": ratio,
            "angle": (np.degrees(found.sersic_theta) - 90.0) % 180.0,
            "x": found.sersic_xc,
            "y": found.sersic_yc,
        },
        caution=bool(found.flag_sersic),
    )
