"""Covariance of a mode from second derivatives of the log posterior, for poorly fitting models."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from deeplegato_pp.inference.fit.fit import Fit
from deeplegato_pp.scene.batches import Batches, Data, respond
from deeplegato_pp.scene.prior import W_MAX

_REACH = 0.1
"""Step between the gradients, in standard deviations of the initial covariance."""

_STEPS = 3

_WORTH_IT = 1e-3
"""Gain of the log posterior below which the search ends."""

_LEAST = 0.02
"""Minimum ratio of curvature to Fisher information; it corresponds to seven times the width."""


def use_full_curvature(batches: Batches, modes: Fit) -> Fit:
    r"""Returns modes whose covariance comes from second derivatives of the log posterior.

    Where the data deviate strongly from the model, as for a bright spiral galaxy, the term
    :math:`\sum r\, \nabla^2 I / V` that Fisher information neglects is not small: the posterior
    is still nearly Gaussian, but with another covariance. The curvature is computed from gradients
    a tenth of a sigma apart, along the axes of the given covariance, and a Newton step with it
    improves the optimum. Directions without positive curvature keep their width.

    Args:
        batches: Renders of the galaxies.
        modes: Fits of the galaxies under the hypothesis' own prior.
    """
    return Fit.concatenate([_curved(batches, modes[i : i + 1]) for i in range(len(modes))])


def _curved(batches: Batches, mode: Fit) -> Fit:
    row = mode.rows
    data = Data.of(batches.likelihood, row)
    tril = torch.linalg.cholesky(mode.covariance[0])
    for _ in range(_STEPS):
        points = torch.cat([mode.u, (mode.u + _REACH * tril.T).clamp(-W_MAX, W_MAX)])
        slope = _gradients(batches, data, row, points) @ tril  # along the covariance's axes
        curvature = -(slope[1:] - slope[:1]) / _REACH
        value, vectors = torch.linalg.eigh(0.5 * (curvature + curvature.T))
        value = torch.where(value > _LEAST, value, 1.0)
        step = tril @ vectors @ ((vectors.T @ slope[0]) / value)
        covariance = tril @ (vectors / value) @ vectors.T @ tril.T
        covariance = 0.5 * (covariance + covariance.T)
        tril = torch.linalg.cholesky(covariance)
        mode = replace(mode, covariance=covariance[None], renders=mode.renders + 9 * len(points))
        trial = (mode.u + step).clamp(-W_MAX, W_MAX)
        image = batches.render(row, trial)
        found = data.residual(image)
        reached = found.log_likelihood + batches.likelihood.coordinates.log_prior(trial)
        if float(reached) <= float(mode.log_posterior) + _WORTH_IT:
            break
        mode = replace(
            mode,
            u=trial,
            log_posterior=reached,
            image=image,
            residual=found.left,
            variance=found.variance,
        )
    return mode


def _gradients(batches: Batches, data: Data, row: Tensor, points: Tensor) -> Tensor:
    """Returns gradients of the log posterior, with shape (K, F), in float64 for differences."""
    same = row.expand(len(points))
    images, jacobian, _ = batches.differentiate(same, points, torch.float64)
    return respond(data.at(torch.zeros_like(same)), images, jacobian).gradient - points
