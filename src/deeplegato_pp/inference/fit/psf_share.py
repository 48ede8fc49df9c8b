r"""The part of a PSF's width error that is fitted, where residuals have structure.

The amplitude a of the PSF-width template has the prior N(0, s^2). Arms, bars or a bulge beside a
disc leave residuals far above the noise, and a likelihood of independent pixels takes their
projection on the template for a measurement of a: the amplitude becomes many times its prior's
width, and draws the size and shape of the galaxy with it. Where block scores of the template
scatter with :math:`J` instead of the Fisher information :math:`F`, the image measures a with
variance :math:`J / F^2`, not :math:`1 / F`. The best linear estimate of a, with weight
:math:`1 / (1 + J / (F s)^2)`, is that of the likelihood with the narrower prior of width

.. math:: s' = s \sqrt{F / J} .

F and J are those of the template's effective score, from which the response of all other
coordinates is subtracted. Honest widths are computed for an amplitude that scatters with s, so that
no error of the PSF is lost.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from deeplegato_pp.inference.fit.blocks import SECTORS
from deeplegato_pp.inference.fit.fit import Fit
from deeplegato_pp.inference.fit.scores import (
    Scores,
    block_scores,
    join_opposite,
    leverage_corrected,
    shrunk_scatter,
)
from deeplegato_pp.inference.fit.structure import Slopes, blocks_at, mode_images, normalised
from deeplegato_pp.scene.likelihood import Likelihood

WHOLE = 0.8
"""Part of the error above which all of it is fitted."""

SMALLEST = 0.01
"""Smallest part of the error that is fitted."""

NEGLIGIBLE = 1.0
"""Fitted amplitude, in widths of its prior, up to which an error of the PSF explains it."""


def fit_less(likelihood: Likelihood, optima: Fit) -> list[int]:
    """Sets the fitted parts of PSF-width errors from residuals at optima.

    Args:
        likelihood: Galaxies, with the masks and the templates in force; its shares are changed.
        optima: One optimum per galaxy.

    Returns:
        Which of the optima belong to galaxies whose error is now fitted in part only; these
        galaxies are to be searched again.
    """
    changed = []
    for k, row in enumerate(optima.rows.tolist()):
        if not bool(optima.converged[k]):
            continue
        slopes = optima.image[k], optima.jacobian[k].double()
        share = fitted_share(likelihood, row, optima.u[k], slopes)
        if share < WHOLE:
            likelihood.psf_widths.share[row] = share
            changed.append(k)
    return changed


def fitted_share(
    likelihood: Likelihood, row: int, u: Float[Tensor, " f"], slopes: Slopes | None = None
) -> float:
    """Returns the part of one galaxy's PSF-width error to be fitted, s'/s, at most 1.

    It is 1 where the PSF is known, the fitted error is small, or structure cannot be judged.

    Args:
        likelihood: Galaxies, with the masks and the templates in force.
        row: Index of the galaxy.
        u: Its mode, with shape (F,).
        slopes: Image and derivatives at the mode, if known.
    """
    if not bool(likelihood.psf_widths.uncertain[row]):
        return 1.0
    slopes = likelihood.jacobian(row, u) if slopes is None else slopes
    amplitude = float(likelihood.residual(row, slopes[0]).amplitudes.best[-1])
    if abs(amplitude) < NEGLIGIBLE:
        return 1.0
    images, _ = normalised(likelihood, row, mode_images(likelihood, row, u, slopes))
    scores = block_scores(images, blocks_at(likelihood, row, u))
    return share_of(scores) if bool(scores.judged(len(u))) else 1.0


def share_of(scores: Scores) -> float:
    r"""Returns :math:`\sqrt{F/J}` of the last template's amplitude, at most 1.

    Args:
        scores: Scores of one galaxy's blocks.
    """
    precision = scores.fisher + torch.eye(scores.fisher.shape[-1]).to(scores.fisher)
    others, mixed = precision[0, :-1, :-1], precision[0, :-1, -1]
    effective = torch.cat([-torch.linalg.solve(others, mixed), mixed.new_ones(1)])
    information = max(float(effective @ scores.fisher[0] @ effective), 0.0)
    scatter = 0.0
    for part in (scores, join_opposite(scores, SECTORS)):
        found = shrunk_scatter(leverage_corrected(part, precision), scores.noise)
        scatter = max(scatter, float(effective @ found[0] @ effective))
    return min(1.0, max(SMALLEST, (information / scatter) ** 0.5))
