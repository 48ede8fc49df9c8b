"""pysersic (Pasha & Miller 2023, arXiv:2306.05454): MAP, Laplace, variational, and NUTS.

The prior is its automatic one, as its documentation begins; it takes no start values.
"""

from __future__ import annotations

import jax
import numpy as np
from galaxy import PARAMETERS, Fit, Galaxy
from pysersic import FitSingle
from pysersic.priors import autoprior

NAMES = dict(zip(PARAMETERS, ("flux", "r_eff", "n", "ellip", "theta", "xc", "yc"), strict=True))


def fit(galaxy: Galaxy, method: str) -> Fit:
    """Fits one Sérsic profile by one of its four ways."""
    image, sigma, mask = _square(galaxy)
    psf = _smaller(galaxy.psf, min(galaxy.image.shape))
    prior = autoprior(image, profile_type="sersic", mask=mask, sky_type="none")
    fitter = FitSingle(data=image, rms=sigma, psf=psf, prior=prior, mask=mask)
    key = jax.random.PRNGKey(1)
    if method == "map":
        found = fitter.find_MAP(rkey=key, return_model=False)
        values = {ours: float(found[theirs]) for ours, theirs in NAMES.items()}
        return Fit(_converted(values))
    if method == "nuts":
        quiet = {"progress_bar": False}
        result = fitter.sample(key, mcmc_kwargs=quiet, return_model=False)
    else:
        result = fitter.estimate_posterior(key, method=method, return_model=False)
    draws = {k: np.asarray(v).ravel() for k, v in result.idata.posterior.items()}
    values = {ours: float(np.median(draws[theirs])) for ours, theirs in NAMES.items()}
    turn = 2.0 * draws["theta"]
    middle = np.angle(np.exp(1j * turn).mean())
    spread = np.angle(np.exp(1j * (turn - middle))) / 2.0
    values["angle"] = middle / 2.0
    errors = {ours: float(draws[theirs].std()) for ours, theirs in NAMES.items()}
    errors["flux"] /= values["flux"]
    errors["angle"] = float(np.degrees(spread.std()))
    return Fit(_converted(values), errors)


def _square(galaxy: Galaxy) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image, noise and mask on a square, which its renderers ask for; what is added is masked."""
    height, width = galaxy.image.shape
    added = [(0, max(height, width) - height), (0, max(height, width) - width)]
    return (
        np.pad(galaxy.image, added),
        np.pad(galaxy.sigma, added, constant_values=1.0),
        np.pad(galaxy.mask, added, constant_values=True),
    )


def _smaller(psf: np.ndarray, side: int) -> np.ndarray:
    """The PSF's middle, smaller than the image as its renderers ask for, with sum 1."""
    cut = max(0, (max(psf.shape) - side) // 2 + 1)
    middle = psf[cut : psf.shape[0] - cut, cut : psf.shape[1] - cut]
    return middle / middle.sum()


def _converted(values: dict[str, float]) -> dict[str, float]:
    """Ellipticity to axis ratio, angle in radians from +y to degrees."""
    angle = np.degrees(values["angle"]) % 180.0
    return values | {"axis_ratio": 1.0 - values["axis_ratio"], "angle": float(angle)}
