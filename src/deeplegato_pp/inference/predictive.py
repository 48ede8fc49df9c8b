"""Posterior-predictive checks: would the posterior make an image like the one observed?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from deeplegato_pp.inference.posterior.posterior import Measurement, Posterior

Array = np.ndarray

SUSPICIOUS = 0.001
"""p-value below which a fit is counted as bad: one good galaxy in a thousand."""


@dataclass(frozen=True)
class PredictiveCheck:
    """How well posteriors predict the images they come from.

    Attributes:
        chi2: Chi-square per unmasked pixel, mean over draws, with shape (B,).
        p_value: Probability of an image at least as far from the model, with shape (B,).
    """

    chi2: Float[Array, "b"]
    p_value: Float[Array, "b"]

    def summary(self) -> dict[str, Any]:
        """Returns median chi-square, and the share of galaxies that fit badly, as plain numbers."""
        return {
            "galaxies": len(self.chi2),
            "median_chi2": float(np.median(self.chi2)),
            "bad_below_p": SUSPICIOUS,
            "bad_share": float(np.mean(self.p_value < SUSPICIOUS)),
            "median_p_value": float(np.median(self.p_value)),
        }


def check(posterior: Posterior, draws: int = 20, seed: int = 0) -> PredictiveCheck:
    r"""Renders posterior draws and compares them with the images, by chi-square.

    The distance of image and model is :math:`r^T C^{-1} r`, r the residual and C the noise with
    that of the sky's constant offset: the noise under which the draws were weighed, with its mask,
    correlation and model error. With the noise known, images simulated from a draw have it
    distributed as chi-square with as many degrees of freedom as unmasked pixels (1/c of them where
    the noise is correlated), so none needs to
    be simulated: the p-value is that tail probability, averaged over draws.

    Blind to: errors smaller than a posterior's own width, since it was fitted to the same image
    (p-values of right posteriors crowd towards 1/2); structure that chi-square over all pixels
    dilutes; Poisson noise that is not Gaussian, at few counts.

    Args:
        posterior: All of whose galaxies were measured.
        draws: Posterior draws rendered per galaxy.
        seed: Of their choice.

    Raises:
        InputError: If a galaxy's stamp is not there.
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
