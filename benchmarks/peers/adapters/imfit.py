"""pyimfit (Erwin 2015, arXiv:1408.1097): Levenberg-Marquardt, errors from its covariance."""

from __future__ import annotations

import numpy as np
import pyimfit
from galaxy import Fit, Galaxy, sersic_flux, surface_brightness


def fit(galaxy: Galaxy, method: str) -> Fit:
    """Fits one Sérsic profile; imfit counts pixels from 1."""
    start = galaxy.start
    side = max(galaxy.image.shape)
    sersic = pyimfit.make_imfit_function("Sersic")
    for name, value, limits in (
        ("PA", start.angle, (-180.0, 360.0)),
        ("ell", 1.0 - start.axis_ratio, (0.0, 0.95)),
        ("n", start.index, (0.3, 8.0)),
        ("I_e", surface_brightness(start), (0.0, 1e3 * float(np.abs(galaxy.image).max()))),
        ("r_e", start.radius, (0.1, float(side))),
    ):
        getattr(sersic, name).setValue(value, limits)
    model = pyimfit.SimpleModelDescription()
    model.x0.setValue(start.x + 1.0, (start.x - 9.0, start.x + 11.0))
    model.y0.setValue(start.y + 1.0, (start.y - 9.0, start.y + 11.0))
    model.addFunction(sersic)
    fitter = pyimfit.Imfit(model, psf=galaxy.psf_bare, maxThreads=1)
    fitter.loadData(galaxy.image, error=galaxy.sigma, mask=galaxy.mask.astype(np.uint8))
    fitter.doFit(solver=method)
    names = [n.split("_1")[0] for n in fitter.numberedParameterNames]
    value = dict(zip(names, fitter.getRawParameters(), strict=True))
    errors = fitter.getParameterErrors()
    sigma = {} if errors is None else dict(zip(names, np.atleast_1d(errors), strict=True))
    ratio = 1.0 - value["ell"]
    named = {"radius": "r_e", "index": "n", "axis_ratio": "ell", "angle": "PA"}
    named |= {"x": "X0", "y": "Y0"}
    return Fit(
        {
            "flux": sersic_flux(value["I_e"], value["r_e"], value["n"], ratio),
            "radius": value["r_e"],
            "index": value["n"],
            "axis_ratio": ratio,
            "angle": value["PA"] % 180.0,
            "x": value["X0"] - 1.0,
            "y": value["Y0"] - 1.0,
        },
        {ours: sigma[theirs] for ours, theirs in named.items() if theirs in sigma},
        caution=not fitter.fitConverged,
    )
