"""Likelihood of simulated galaxies, and truth of galaxies that are not Sérsic profiles."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from deeplegato_pp.data.conditions import DrawnPSF
from deeplegato_pp.data.sersic_simulator import SimulatedScene
from deeplegato_pp.inference.fit.fit import Fit, GaussianPrior, Stop, fit
from deeplegato_pp.scene.likelihood import Likelihood
from deeplegato_pp.scene.noise import MODEL_ERROR, model_variance
from deeplegato_pp.scene.prior import PriorBox
from deeplegato_pp.scene.stamps import StampBatch

_FLAT = 10.0
"""Width of the prior for the best profile relative to the stated one: almost no prior, centred on
the smooth galaxy for parameters that the pixels do not constrain."""

_LONGEST_STEP = 1.0
"""Maximum step of a coordinate w in that search."""

_TOLERANCE = 0.01
"""Squared distance from the optimum at which the search stops. [posterior sigmas]"""


def exact_likelihood(
    scene: SimulatedScene, number: int, box: PriorBox, model_error: float = 0.0
) -> Likelihood:
    """Returns the likelihood of the first galaxies of a scene, with the given PSFs.

    The errors of the PSFs are those with which the images were made.
    """
    return _likelihood(scene.stamps[:number], scene.psf, box, model_error, scene.psf.error)


def best_profiles(
    stamps: StampBatch, psf: DrawnPSF, start: Float[Tensor, "b 7"], box: PriorBox
) -> tuple[Float[Tensor, "b 7"], Bool[Tensor, " b"]]:
    """Finds the Sérsic profiles that best fit noiseless images: the truth for structured galaxies.

    This is the estimand of `docs/point_estimate.md` for galaxies that are not Sérsic profiles: the
    least-squares fit with the weights of the default likelihood at the noiseless image, including
    the sky, without noise, masks and prior. Pixels count as independent also where the noise is
    correlated, so that the truth of a galaxy does not depend on how its image was resampled; for
    half of such galaxies the difference is below 0.003 in every coordinate. The search runs on the
    CPU.

    Args:
        stamps: Noiseless images of isolated galaxies, with the noise that defines the weights.
        psf: Their PSFs.
        start: Coordinates w of the smooth galaxies.
        box: Prior at the reference instrument, which defines the coordinates.

    Returns:
        Coordinates w, and whether the search converged inside the box.
    """
    found = best_fits(stamps.to("cpu"), psf.to("cpu"), start.cpu(), box)
    params = _wide(box).to_physical(found.u)
    inside = box.contains(params) & found.converged
    w = start.clone()
    w[inside.to(w.device)] = box.to_normal(params[inside]).to(w)
    return w, inside.to(w.device)


def best_fits(
    stamps: StampBatch,
    psf: DrawnPSF,
    start: Float[Tensor, "b 7"],
    box: PriorBox,
    model_error: float = MODEL_ERROR,
) -> Fit:
    """Fits noiseless images; coordinates of the fits refer to a box wider than the prior's.

    Args:
        stamps: Noiseless images of isolated galaxies, with the noise that defines the weights.
        psf: Their PSFs.
        start: Initial coordinates, with shape (B, 7), in the prior's box.
        box: Prior at the reference instrument.
        model_error: Relative model error, which is included in the weights.
    """
    wide = _wide(box)
    # Weights that follow the model would bias it towards large variances: without noise, the ln V
    # term of the likelihood is not balanced.
    variance = model_variance(stamps.image, stamps.sigma, stamps.gain, model_error)
    no_gain = torch.full_like(stamps.gain, torch.inf)
    independent = torch.ones_like(stamps.noise_correlation)
    weighted = replace(stamps, sigma=variance.sqrt(), gain=no_gain, noise_correlation=independent)
    likelihood = _likelihood(weighted, psf, wide, 0.0)
    begin = wide.to_normal(box.to_physical(start))
    unit = torch.eye(start.shape[1], dtype=torch.float64).expand(len(start), -1, -1)
    return fit(
        likelihood,
        torch.arange(len(start)),
        begin,
        prior=GaussianPrior(begin, _FLAT * unit),
        stop=Stop(tolerance=_TOLERANCE, longest_step=_LONGEST_STEP / _FLAT),
    )


def _likelihood(
    stamps: StampBatch,
    psf: DrawnPSF,
    box: PriorBox,
    model_error: float,
    psf_error: Tensor | None = None,
) -> Likelihood:
    fine = psf.oversampled[: len(stamps)].tolist()
    psfs = [(psf.fine if f else psf.native)[i] for i, f in enumerate(fine)]
    oversampling = [2 if f else 1 for f in fine]
    number = len(stamps)
    return Likelihood(
        stamps,
        psfs,
        oversampling,
        [True] * number,
        box,
        model_error=model_error,
        psf_error=[0.0] * number if psf_error is None else psf_error[:number].tolist(),
    )


def _wide(box: PriorBox) -> PriorBox:
    """Returns a box wide enough that no best profile in the given one is at its edges."""
    radius, index = box.effective_radius, box.sersic_index
    return replace(
        box,
        magnitude=(box.magnitude[0] - 2.0, box.magnitude[1] + 2.0),
        effective_radius=(radius[0] / 4.0, radius[1] * 2.0),
        sersic_index=(max(0.5 * index[0], 0.26), max(index[1], min(2.0 * index[1], 9.9))),
        axis_ratio=(0.5 * box.axis_ratio[0], 1.0),
        center_x=(box.center_x[0] - 3.0, box.center_x[1] + 3.0),
        center_y=(box.center_y[0] - 3.0, box.center_y[1] + 3.0),
    )
