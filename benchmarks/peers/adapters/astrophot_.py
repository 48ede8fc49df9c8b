"""AstroPhot (Stone et al. 2023, arXiv:2308.01957): Levenberg-Marquardt, alone and in batches.

The target's own frame is pixels; angles are counted from +y.
"""

from __future__ import annotations

import math

import astrophot as ap
import numpy as np
import torch
from galaxy import Fit, Galaxy, sersic_flux, surface_brightness

BATCH = 16
"""Galaxies that :func:`fit_many` is given at a time."""


def fit(galaxy: Galaxy, method: str) -> Fit:
    """Fits one Sérsic profile."""
    model = _model(galaxy, _target(galaxy, 0))
    result = ap.fit.LM(model, verbose=0).fit()
    value = torch.cat([p.value.reshape(-1) for p in model.dynamic_params]).numpy()
    sigma = torch.cat([p.uncertainty.reshape(-1) for p in model.dynamic_params]).numpy()
    found = _fit(value, sigma, "success" in result.message)
    found.errors["flux"] = float(model.total_flux_uncertainty() / model.total_flux())
    return found


def fit_many(galaxies: list[Galaxy], method: str) -> list[Fit]:
    """Fits galaxies of one shape in one batch."""
    targets = [_target(g, i) for i, g in enumerate(galaxies)]
    model = _model(galaxies[0], targets[0])
    model.set_values(torch.as_tensor(np.array([_start(g) for g in galaxies])))
    windows = ap.WindowBatch([t.window for t in targets])
    result = ap.fit.BatchLM(model, ap.TargetImageBatch(targets), windows, verbose=0).fit()
    sigmas = torch.diagonal(result.covariance_matrix, dim1=1, dim2=2).abs().sqrt()
    rows = zip(result.current_state.numpy(), sigmas.numpy(), strict=True)
    return [_fit(v, s, "success" in result.message) for v, s in rows]


def _start(galaxy: Galaxy) -> tuple[float, ...]:
    """Start values in the model's order: centre, q, PA, n, Re, Ie."""
    s = galaxy.start
    angle = math.radians(s.angle)
    return s.x, s.y, s.axis_ratio, angle, s.index, s.radius, surface_brightness(s)


def _target(galaxy: Galaxy, number: int) -> ap.TargetImage:
    return ap.TargetImage(
        name=f"target{number}",
        data=galaxy.image,
        variance=galaxy.sigma**2,
        mask=galaxy.mask,
        psf=ap.PSFImage(data=galaxy.psf_bare),
        zeropoint=0.0,
    )


def _model(galaxy: Galaxy, target: ap.TargetImage) -> ap.Model:
    x, y, q, angle, index, radius, brightness = _start(galaxy)
    model = ap.Model(
        model_type="sersic galaxy model",
        target=target,
        center=[x, y],
        q=q,
        PA=angle,
        n=index,
        Re=radius,
        Ie=brightness,
        psf_convolve=True,
    )
    model.initialize()
    return model


def _fit(value: np.ndarray, sigma: np.ndarray, converged: bool) -> Fit:
    """The answer from the model's parameters in its order."""
    x, y, q, angle, index, radius, brightness = (float(v) for v in value)
    names = ("x", "y", "axis_ratio", "angle", "index", "radius")
    errors = {n: float(s) for n, s in zip(names, sigma, strict=False)}
    errors["angle"] = math.degrees(errors["angle"])
    values = {"x": x, "y": y, "axis_ratio": q, "index": index, "radius": radius}
    values |= {
        "angle": math.degrees(angle) % 180.0,
        "flux": sersic_flux(brightness, radius, index, q),
    }
    return Fit(values, errors, caution=not converged)
