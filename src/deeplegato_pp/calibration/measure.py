"""Measurement of one batch of simulated galaxies."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from deeplegato_pp.arrays import Array
from deeplegato_pp.calibration.galaxies import QUALITIES, UNJUDGED, MeasuredGalaxies
from deeplegato_pp.calibration.marginals import marginals
from deeplegato_pp.calibration.settings import Settings, Simulations
from deeplegato_pp.calibration.truth import exact_likelihood
from deeplegato_pp.data.sersic_simulator import SersicSimulator, SimulatedScene
from deeplegato_pp.diagnostics import (
    crps,
    highest_density_levels,
    log_scaled,
    tarp_levels,
    truth_ranks,
)
from deeplegato_pp.diagnostics.rows import row_quantiles, row_weights
from deeplegato_pp.inference.posterior.draws import RefinedGalaxy
from deeplegato_pp.inference.posterior.posterior import Posterior
from deeplegato_pp.inference.predictor import Predictor
from deeplegato_pp.inference.refine.engine import refine_batch
from deeplegato_pp.inference.refine.options import RefineOptions
from deeplegato_pp.observation.observation import Observation
from deeplegato_pp.scene.parameters import NUM_PARAMETERS, PARAMETERS, signal_to_noise
from deeplegato_pp.scene.prior import PriorBox
from deeplegato_pp.scene.stamps import REFERENCE_PIXEL_SCALE, REFERENCE_ZERO_POINT


@dataclass(frozen=True)
class Draws:
    """Posterior of a batch.

    Attributes:
        w: Coordinates of the draws, with shape (B, S, 7).
        log_density: Their posterior log-density up to a constant per galaxy, with shape (B, S).
        truth_log_density: The same for the truth, with shape (B,); -inf outside the prior.
        log_weights: Log-weights, with shape (B, S), or None.
        nll: See :class:`MeasuredGalaxies`.
        ess: Effective sample size, with shape (B,).
        khat: Pareto k-hat, with shape (B,).
        flags: Flags of the refinement, with shape (B,).
        under_noise: Coordinates of the same draws with the widths of the stated noise, if `w` has
            honest ones, with shape (B, S, 7).
    """

    w: Tensor
    log_density: Array
    truth_log_density: Array
    log_weights: Array | None
    nll: Array
    ess: Array
    khat: Array
    flags: Int[Array, " b"]
    under_noise: Tensor | None = None


def measure_batch(
    predictor: Predictor, simulations: Simulations, step: int, settings: Settings
) -> MeasuredGalaxies:
    """Simulates and measures one batch.

    Args:
        predictor: The network.
        simulations: Source of the scene.
        step: Number of the batch.
        settings: Settings of the run.
    """
    scene = simulations.scene(step)
    box = predictor.model.prior
    inside = box.contains(scene.params)
    true_w = box.to_normal(inside_box(scene.params, box))
    draws = _network_draws(predictor, scene, true_w, simulations.draw_seeds(step), settings.draws)
    draws.truth_log_density[~inside.numpy()] = -np.inf
    draws.nll[~inside.numpy()] = np.inf
    if settings.refine:
        draws = _refined(predictor, scene, draws, true_w, inside.numpy(), settings)
    columns = _columns(box, scene, draws)
    batch = len(scene.params)
    detailed = min(max(settings.detailed - step * batch, 0), batch)
    columns["bound"] = _bounds(scene, simulations, detailed)
    flags, quality, miss = _verdicts(predictor, scene, detailed, settings)
    flags[:detailed] |= draws.flags[:detailed]
    return MeasuredGalaxies(**columns, flags=flags, quality=quality, judged_miss=miss)


def inside_box(params: Float[Tensor, "b 7"], box: PriorBox) -> Float[Tensor, "b 7"]:
    """Moves parameters outside a box to its edges."""
    moved = params.double().clone()
    for i, p in enumerate(PARAMETERS):
        if p.period is None:
            moved[:, i] = moved[:, i].clamp(*getattr(box, p.name))
    return moved


def observations_of(scene: SimulatedScene, number: int) -> list[Observation]:
    """Returns the first galaxies of a scene as user observations."""
    stamps, found = scene.stamps, []
    for i in range(number):
        fine = bool(scene.psf.oversampled[i])
        gain = float(stamps.gain[i])
        found.append(
            Observation.from_array(
                stamps.image[i].double().numpy(),
                (scene.psf.fine if fine else scene.psf.native)[i].double().numpy(),
                stamps.sigma[i].double().numpy(),
                mask=stamps.mask[i].numpy(),
                gain=gain if np.isfinite(gain) else None,
                pixel_scale=REFERENCE_PIXEL_SCALE,
                zero_point=REFERENCE_ZERO_POINT,
                psf_oversampling=2 if fine else 1,
                sky_sigma=float(stamps.sky_sigma[i]),
                noise_correlation=stamps.correlation(i) or 1.0,
                psf_error=0.0 if scene.psf.error is None else float(scene.psf.error[i]),
            )
        )
    return found


# --- draws ----------------------------------------------------------------------------------


@torch.no_grad()
def _network_draws(
    predictor: Predictor, scene: SimulatedScene, true_w: Tensor, seeds: Tensor, number: int
) -> Draws:
    model = predictor.model
    context = model.encode(scene.stamps.to(predictor.device))
    w, log_q = model.sample(context, number, seeds)
    at_truth = model.log_prob(context, true_w.to(predictor.device)[:, None])[:, 0]
    truth_density = at_truth.double().cpu().numpy()
    nothing = np.full(len(seeds), np.nan)
    return Draws(
        w.double().cpu(),
        log_q.double().cpu().numpy(),
        truth_density.copy(),
        None,
        -truth_density,
        nothing,
        nothing.copy(),
        np.zeros(len(seeds), dtype=np.int64),
    )


def _refined(
    predictor: Predictor,
    scene: SimulatedScene,
    draws: Draws,
    true_w: Tensor,
    inside: Array,
    settings: Settings,
) -> Draws:
    """Returns draws of the exact posterior, padded to equal length with weights of zero."""
    model, device = predictor.model, predictor.device
    likelihood = exact_likelihood(scene, len(scene.params), model.prior, settings.model_error)
    with torch.no_grad():
        context = model.encode(scene.stamps.to(device))

    def log_prob(rows: Tensor, w: Tensor) -> Tensor:
        with torch.no_grad():
            return model.log_prob(context[rows.to(device)], w.to(device))

    log_q = torch.from_numpy(draws.log_density)
    options = RefineOptions(honest=settings.widths == "honest")
    refined = refine_batch(likelihood, draws.w, log_q, log_prob, ess=settings.ess, options=options)
    w, under_noise = refined.w, None
    density = refined.log_likelihood + likelihood.coordinates.log_prior(w)
    if options.honest:  # the density of moved draws is that at their origin
        moved = [_moved(g, row, t) for g, row, t in zip(refined.galaxies, w, true_w, strict=True)]
        under_noise = w
        w, true_w, log_det, at_det = (torch.stack(column) for column in zip(*moved, strict=True))
        density = density - log_det
    log_l = refined.likelihood.log_likelihood(true_w[:, None])[:, 0]
    at_truth = (log_l + likelihood.coordinates.log_prior(true_w)).numpy()
    if options.honest:
        at_truth = at_truth - at_det.numpy()
    padding = torch.isneginf(refined.log_weights)
    return Draws(
        w,
        torch.where(padding, -1e300, density).numpy(),
        np.where(inside, at_truth, -np.inf),
        refined.log_weights.numpy(),
        np.where(inside, refined.log_evidence.numpy() - at_truth, np.inf),
        refined.ess.numpy(),
        refined.khat.numpy(),
        np.array(refined.flags, dtype=np.int64),
        under_noise,
    )


def _moved(
    galaxy: RefinedGalaxy, w: Float[Tensor, "s 7"], truth: Float[Tensor, "7"]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Returns one galaxy's draws with honest widths, the origin of its truth, and ln |det A|."""
    widening = galaxy.widening
    assert widening is not None  # noqa: S101  # asked for by the caller
    padding = w.new_full((len(w) - len(galaxy.log_weights),), -torch.inf)
    log_weights = torch.cat([galaxy.log_weights, padding])
    moved, log_det = widening.move(w, log_weights)
    back, at_truth = widening.move_back(truth[None], widening.centers(w, log_weights))
    return moved, back[0], log_det, at_truth[0]


# --- results --------------------------------------------------------------------------------


def _columns(box: PriorBox, scene: SimulatedScene, draws: Draws) -> dict[str, Array]:
    truth = scene.params.double().numpy()
    samples = box.to_physical(draws.w).numpy()
    found = marginals(samples, truth, draws.log_weights)
    return {
        **{f.name: getattr(found, f.name) for f in fields(found)},
        "truth": truth,
        "ranks": truth_ranks(samples, truth, draws.log_weights),
        "crps": crps(log_scaled(samples), log_scaled(truth), draws.log_weights),
        "hpd": highest_density_levels(
            draws.log_density, draws.truth_log_density, draws.log_weights
        ),
        "tarp": tarp_levels(samples, truth, None, draws.log_weights),
        "nll": draws.nll,
        "estimates": _estimates(samples, scene, draws.log_weights),
        "snr": scene.snr.double().numpy(),
        "psf_fwhm": scene.psf.fwhm.double().numpy(),
        "gain": scene.stamps.gain.double().numpy(),
        "noise_correlation": scene.stamps.noise_correlation.double().numpy(),
        "masked": scene.stamps.mask.double().mean((1, 2)).numpy(),
        "nearest": scene.nearest.double().numpy(),
        "ess": draws.ess,
        "khat": draws.khat,
        **_noise_columns(box, truth, draws),
    }


def _noise_columns(box: PriorBox, truth: Float[Array, "b 7"], draws: Draws) -> dict[str, Array]:
    """Returns ranks and widths with the stated noise, if the draws have honest widths."""
    if draws.under_noise is None:
        nothing = np.full(truth.shape, np.nan)
        return {"noise_ranks": nothing, "noise_width": nothing.copy()}
    samples = box.to_physical(draws.under_noise).numpy()
    return {
        "noise_ranks": truth_ranks(samples, truth, draws.log_weights),
        "noise_width": marginals(samples, truth, draws.log_weights).width,
    }


def _estimates(
    samples: Array, scene: SimulatedScene, log_weights: Array | None
) -> Float[Array, "b 4"]:
    """Returns posterior medians of S/N, R_e relative to the PSF's FWHM, n and q."""
    columns = SersicSimulator().columns(torch.from_numpy(samples).flatten(0, 1))
    flux, radius, index, ratio = (c.reshape(samples.shape[:2]) for c in columns[:4])
    fwhm = scene.psf.fwhm.double()[:, None]
    draws = (signal_to_noise(flux, radius, ratio, fwhm), radius / fwhm, index, ratio)
    weights = row_weights(log_weights, samples.shape[:2])
    return np.stack([row_quantiles(d.numpy(), (0.5,), weights)[:, 0] for d in draws], axis=1)


# --- detailed results -----------------------------------------------------------------------


def _bounds(scene: SimulatedScene, simulations: Simulations, number: int) -> Float[Array, "b 7"]:
    """Returns square roots of the Cramér-Rao bounds including the prior, in shown units.

    The covariance is the inverse of the sum of the Fisher information at the truth and the prior's
    precision, transformed from w to the shown units by the Jacobian.
    """
    bounds = np.full((len(scene.params), NUM_PARAMETERS), np.nan)
    if number == 0:
        return bounds
    box = simulations.simulator.prior
    likelihood = exact_likelihood(scene, number, box)
    w = box.to_normal(scene.params[:number])
    likelihood.freeze(torch.arange(number), w)
    identity = torch.eye(NUM_PARAMETERS, dtype=torch.float64)
    for i in range(number):
        _, _, information = likelihood.linearize(i, w[i])
        covariance = torch.linalg.inv(information + identity)
        slope = torch.autograd.functional.jacobian(lambda u: _shown(box, u), w[i])
        variance = torch.einsum("ij,jk,ik->i", slope, covariance, slope)
        bounds[i] = variance.clamp_min(0.0).sqrt().numpy()
    return bounds


def _shown(box: PriorBox, w: Float[Tensor, "7"]) -> Float[Tensor, "7"]:
    """Returns parameters at w in shown units, differentiably."""
    params = box.to_physical(w)
    columns = [params[i].log() if p.scale == "log" else params[i] for i, p in enumerate(PARAMETERS)]
    return torch.stack(columns)


def _verdicts(
    predictor: Predictor, scene: SimulatedScene, number: int, settings: Settings
) -> tuple[Int[Array, " b"], Int[Array, " b"], Float[Array, " b"]]:
    """Returns flags, quality and largest miss of the first galaxies, as user observations."""
    batch = len(scene.params)
    flags = np.full(batch, UNJUDGED, dtype=np.int64)
    quality = np.full(batch, UNJUDGED, dtype=np.int64)
    miss = np.full(batch, np.nan)
    if number:
        posterior = predictor.posterior(
            observations_of(scene, number), settings.draws, widths="noise"
        )
        flags[:number] = posterior.flags
        quality[:number] = [QUALITIES.index(q) for q in posterior.quality]
        miss[:number] = largest_miss(posterior, scene.params[:number].double().numpy())
    return flags, quality, miss


def largest_miss(posterior: Posterior, truth: Float[Array, "b 7"]) -> Float[Array, " b"]:
    """Returns the distance of the truth from central 95 % intervals, for the worst parameter.

    Args:
        posterior: Posterior of several galaxies.
        truth: True parameters, with shape (B, 7), in the posterior's units.

    Returns:
        Distance from the nearer end in posterior standard deviations, 0 inside; infinite for a
        galaxy that was not measured.
    """
    samples, log_weights = posterior.batch_samples.numpy(), posterior.batch_log_weights
    measured = np.isfinite(samples).all((1, 2))
    found = np.full(len(samples), np.inf)
    if measured.any():
        weights = None if log_weights is None else log_weights.numpy()[measured]
        miss = marginals(samples[measured], truth[measured], weights).miss
        found[measured] = miss.max(axis=1)
    return found
