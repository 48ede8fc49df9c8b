"""Posterior predictive checks: comparison of images with images predicted by the posterior."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from deeplegato_pp.arrays import Array
from deeplegato_pp.inference.posterior.posterior import Measurement, Posterior
from deeplegato_pp.inference.verdict.verdict import IMPROBABLE


@dataclass(frozen=True)
class PredictiveCheck:
    """Goodness of fit of posteriors to their images.

    Attributes:
        chi2: Chi-square per unmasked pixel, averaged over draws, with shape (B,).
        p_value: Probability of a predicted image at least as far from the model, with shape (B,).
    """

    chi2: Float[Array, "b"]
    p_value: Float[Array, "b"]

    def summary(self) -> dict[str, Any]:
        """Returns the median chi-square and the fraction of bad fits, as plain numbers."""
        return {
            "galaxies": len(self.chi2),
            "median_chi2": float(np.median(self.chi2)),
            "bad_below_p": IMPROBABLE,
            "bad_share": float(np.mean(self.p_value < IMPROBABLE)),
            "median_p_value": float(np.median(self.p_value)),
        }


def check(posterior: Posterior, draws: int = 20, seed: int = 0) -> PredictiveCheck:
    r"""Renders posterior draws and compares them with the images, by chi-square.

    The distance of image and model is :math:`r^T C^{-1} r`, with r the residual and C the noise
    covariance used for the draws' weights, including the sky's constant offset, mask, correlation
    and model error. For images simulated from a draw it follows a chi-square distribution with as
    many degrees of freedom as unmasked pixels (1/c of them for correlated noise), so no simulation
    is needed: the p-value is that tail probability, averaged over draws.

    The check is insensitive to errors smaller than a posterior's own width, since the posterior was
    fitted to the same image (p-values of correct posteriors cluster about 1/2); to structure that
    is diluted in a chi-square over all pixels; and to non-Gaussian Poisson noise at few counts.

    Args:
        posterior: Posterior in which all galaxies were measured.
        draws: Posterior draws rendered per galaxy.
        seed: Random seed of their choice.

    Raises:
        InputError: If a galaxy has no stamp.
        RangeError: If the number of draws is not positive.

    References:
        | Posterior predictive assessment of model fitness via realized discrepancies
        | (Gelman, Meng & Stern, 1996), https://www.jstor.org/stable/24306036
    """
    chosen = posterior.choose(draws, seed)
    rows = zip(posterior.measurements, posterior.batch_w, chosen, strict=True)
    figures = [_check_one(m, w[i]) for m, w, i in rows]
    chi2, p_value = (np.array(column) for column in zip(*figures, strict=True))
    return PredictiveCheck(chi2, p_value)


def _check_one(measurement: Measurement, w: torch.Tensor) -> tuple[float, float]:
    likelihood = measurement.likelihood()
    found = likelihood.residual_row(0, likelihood.coordinates.project(w))
    return float((found.chi2 / found.count).mean()), float(found.p_value.mean())
