"""PetroFit (Geda et al. 2022, arXiv:2206.00709): astropy's Sérsic profile with a PSF."""

from __future__ import annotations

import warnings

import numpy as np
import petrofit
from astropy.modeling import models
from galaxy import Fit, Galaxy, sersic_flux, surface_brightness


def fit(galaxy: Galaxy, method: str) -> Fit:
    """Fits with an oversampled window at the centre, as its documentation recommends."""
    start = galaxy.start
    profile = models.Sersic2D(
        amplitude=surface_brightness(start),
        r_eff=start.radius,
        n=start.index,
        x_0=start.x,
        y_0=start.y,
        ellip=1.0 - start.axis_ratio,
        theta=np.radians(start.angle + 90.0),
        bounds=petrofit.get_default_sersic_bounds(),
    )
    window = ("x_0", "y_0", 20, 5)
    model = petrofit.PSFConvolvedModel2D(profile, psf=galaxy.psf_bare, oversample=window)
    image = np.where(galaxy.mask, np.nan, galaxy.image)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found, _ = petrofit.fit_model(
            image, model, weights=1.0 / galaxy.sigma, calc_uncertainties=True
        )
    value = dict(zip(found.param_names, found.parameters, strict=True))
    stated = found.stds
    sigma = {} if stated is None else dict(zip(stated.param_names, stated.stds, strict=True))
    ratio = 1.0 - value["ellip"]
    names = {"radius": "r_eff", "index": "n", "axis_ratio": "ellip", "x": "x_0", "y": "y_0"}
    errors = {ours: float(sigma[theirs]) for ours, theirs in names.items() if theirs in sigma}
    if "theta" in sigma:
        errors["angle"] = float(np.degrees(sigma["theta"]))
    return Fit(
        {
            "flux": sersic_flux(value["amplitude"], value["r_eff"], value["n"], ratio),
            "radius": value["r_eff"],
            "index": value["n"],
            "axis_ratio": ratio,
            "angle": (np.degrees(value["theta"]) - 90.0) % 180.0,
            "x": value["x_0"],
            "y": value["y_0"],
        },
        errors,
    )
