r"""Posteriors, evidences and odds of hypotheses with several components.

All hypotheses use the same pixels, mask, noise and sky prior, and all priors are normalised, so
that evidences can be compared. Searches start from several ways to split the single profile's
light; importance sampling with a Student-t at each mode, adapted to the weights, gives posterior
and evidence (Cappé et al. 2008, https://arxiv.org/abs/0710.4242).

Plain odds are overconfident for real images: structure is coherent over many pixels, but a
likelihood of independent pixels counts each of them. Tempered odds multiply the difference of
ln L by :math:`p / \mathrm{tr}(J F^{-1})`, at most 1, with J the scatter of the score among blocks
of the sky and F the Fisher information, for the hypothesis that fits best (Varin & Vidoni 2005,
https://doi.org/10.1093/biomet/92.3.519).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from deeplegato_pp.errors import ConfigError
from deeplegato_pp.inference.fit.emulator import InterpolatedTarget
from deeplegato_pp.inference.fit.fit import Fit, fit
from deeplegato_pp.inference.fit.modes import distinct_modes, gaussian_draws, sampler_at
from deeplegato_pp.inference.fit.sandwich import Sandwich
from deeplegato_pp.inference.fit.structure import sandwich_at
from deeplegato_pp.inference.posterior.draws import RefinedDraws
from deeplegato_pp.inference.posterior.scene_record import SceneRecord, part_columns
from deeplegato_pp.inference.refine.scenes_beside import beside_neighbours
from deeplegato_pp.inference.sampling.sampler import Budget, TargetSampler, sample_targets
from deeplegato_pp.observation.preparation import PreparedStamp
from deeplegato_pp.scene import units
from deeplegato_pp.scene.batches import Batches
from deeplegato_pp.scene.components import Coordinates
from deeplegato_pp.scene.galaxy_scene import SCENES, GalaxyScene
from deeplegato_pp.scene.group import Member
from deeplegato_pp.scene.half_light import half_light_radius
from deeplegato_pp.scene.likelihood import Likelihood
from deeplegato_pp.scene.parameters import (
    AXIS_RATIO,
    CENTER_X,
    CENTER_Y,
    MAGNITUDE,
    NUM_PARAMETERS,
    POSITION_ANGLE,
)
from deeplegato_pp.scene.prior import W_MAX
from deeplegato_pp.stats.pareto import pareto_khat

AUTO = ("sersic", "sersic+point", "bulge+disc")
"""Hypotheses compared by ``auto``."""

CHOICES = (*SCENES, "auto")

LAPLACE_DRAWS = 1000
"""Number of draws from the Gaussians at the modes, by Laplace's method."""

ESS = 400.0
"""Required effective sample size for each hypothesis of several components."""


@dataclass(frozen=True, eq=False)
class Hypothesis:
    """Results for one galaxy under one hypothesis.

    Attributes:
        name: Name of the hypothesis, one of :data:`~deeplegato_pp.scene.galaxy_scene.SCENES`.
        coordinates: Free coordinates.
        seen: Coordinates as used by the likelihood, including neighbours if there are any.
        u: Draws, with shape (S, F).
        log_weights: Unnormalised log weights, with shape (S,).
        log_evidence: ln Z.
        log_evidence_error: Standard error of ln Z; NaN by Laplace's method, like the next two.
        ess: Effective sample size.
        khat: Pareto k-hat of the weights.
        log_likelihood: Largest ln L found.
        num_modes: Number of modes found.
        optimum: Coordinates of the best mode, with shape (F,).
    """

    name: str
    coordinates: GalaxyScene
    seen: Coordinates
    u: Float[Tensor, "s f"]
    log_weights: Float[Tensor, " s"]
    log_evidence: float
    log_evidence_error: float
    log_likelihood: float
    ess: float
    khat: float
    num_modes: int
    optimum: Float[Tensor, " f"]


def hypotheses_of(scene: str) -> tuple[str, ...]:
    """Returns the hypotheses compared for a choice of scene, with the single profile first.

    Raises:
        ConfigError: If the choice is unknown.

    Example:
        >>> hypotheses_of("bulge+disc")
        ('sersic', 'bulge+disc')
    """
    if scene not in CHOICES:
        raise ConfigError(f"unknown scene {scene!r}, expected one of {', '.join(CHOICES)}.")
    if scene == "auto":
        return AUTO
    return ("sersic",) if scene == "sersic" else ("sersic", scene)


def check_scene(scene: str, fixed: bool) -> None:
    """Raises an error for invalid choices of scene.

    Args:
        scene: Choice of scene.
        fixed: Whether parameters of the single profile are fixed.

    Raises:
        ConfigError: If the scene is unknown, or has several components and parameters are fixed.
    """
    if len(hypotheses_of(scene)) > 1 and fixed:
        raise ConfigError(
            f"scene {scene} is compared with a free single profile, and parameters are fixed. "
            "Leave fixed values out, or take the scene sersic."
        )


def explore(
    refined: RefinedDraws,
    name: str,
    seeds: Sequence[int],
    ess: float = ESS,
    method: str = "exact",
) -> list[Hypothesis]:
    """Computes the posteriors of galaxies under a hypothesis of several components.

    Args:
        refined: Galaxies refined under the single profile, whose pixels and masks are used.
        name: Name of the hypothesis.
        seeds: Random seeds, one per galaxy.
        ess: Required effective sample size.
        method: ``"exact"`` or ``"laplace"``.
    """
    coordinates = GalaxyScene(name, refined.likelihood.box)
    best = torch.stack([g.best for g in refined.galaxies])
    starts = coordinates.starts(best)
    seen: Coordinates = coordinates
    if isinstance(refined.likelihood.coordinates, Member):
        seen, starts = beside_neighbours(refined.likelihood, name, best[0], starts[0])
    likelihood = refined.likelihood.under(seen)
    owner = torch.arange(len(best)).repeat_interleave(starts.shape[1])
    batches = Batches(likelihood)
    modes = distinct_modes(fit(likelihood, owner, starts.flatten(0, 1), batches=batches))
    batches.freeze(torch.arange(len(best)), torch.stack([found.u[0] for found in modes]))
    if method == "laplace":
        return [
            _approximated(coordinates, likelihood, found, seed)
            for found, seed in zip(modes, seeds, strict=True)
        ]
    targets = [InterpolatedTarget(batches, i, m.u[0], m.image[0]) for i, m in enumerate(modes)]
    budget = Budget(ess=ess, max_draws=math.ceil(10 * ess))
    samplers = [
        sampler_at(coordinates, found, seed, budget)
        for found, seed in zip(modes, seeds, strict=True)
    ]
    sample_targets(
        samplers,
        lambda rows, draws: [targets[i](u) for i, u in zip(rows, draws, strict=True)],
        lambda _, draws: [coordinates.log_prior(u) for u in draws],
    )
    return [
        _collected(coordinates, likelihood, i, sampler, found)
        for i, (sampler, found) in enumerate(zip(samplers, modes, strict=True))
    ]


def _approximated(
    coordinates: GalaxyScene, likelihood: Likelihood, modes: Fit, seed: int
) -> Hypothesis:
    """Returns one galaxy's results by Laplace's method."""
    u, _ = gaussian_draws(modes, LAPLACE_DRAWS, torch.Generator().manual_seed(seed))
    return Hypothesis(
        coordinates.name,
        coordinates,
        likelihood.coordinates,
        u,
        torch.zeros(len(u), dtype=torch.float64),
        modes.log_evidence(),
        math.nan,
        float(likelihood.log_likelihood_of(int(modes.rows[0]), modes.image[:1])[0]),
        math.nan,
        math.nan,
        len(modes),
        modes.u[0],
    )


def _collected(
    coordinates: GalaxyScene,
    likelihood: Likelihood,
    row: int,
    sampler: TargetSampler,
    modes: Fit,
) -> Hypothesis:
    pool = sampler.pool
    evidence, error = pool.log_evidence()
    log_weights = pool.log_weights()
    optimum = modes.u[0]
    peak = float(likelihood.log_likelihood_of(row, modes.image[:1])[0])
    sampled = pool.log_target - likelihood.coordinates.log_prior(pool.x)
    return Hypothesis(
        coordinates.name,
        coordinates,
        likelihood.coordinates,
        pool.x,
        log_weights,
        evidence,
        error,
        max(peak, float(sampled[sampled.isfinite()].max())),
        sampler.ess,
        pareto_khat(log_weights),
        len(modes),
        optimum,
    )


def tempered(
    log_evidence: Mapping[str, float], log_likelihood: Mapping[str, float], temper: float
) -> dict[str, float]:
    """Returns log-evidences with differences of ln L multiplied by a factor.

    The prior-volume term, ln Z - ln L, is kept.

    Args:
        log_evidence: ln Z by hypothesis.
        log_likelihood: Largest ln L of each hypothesis.
        temper: The factor, between 0 and 1.

    Example:
        >>> tempered({"a": -10.0, "b": -5.0}, {"a": -2.0, "b": 8.0}, 0.5)
        {'a': -5.0, 'b': -5.0}
    """
    top = max(log_likelihood.values())
    return {
        name: z - (1.0 - temper) * (log_likelihood[name] - top) for name, z in log_evidence.items()
    }


def compare_scenes(
    refined: RefinedDraws,
    prepared: Sequence[PreparedStamp],
    scene: str,
    seeds: Sequence[int],
    *,
    honest: bool = True,
    ess: float = ESS,
    method: str = "exact",
) -> list[SceneRecord]:
    """Compares a single profile with hypotheses of several components, galaxy by galaxy.

    Args:
        refined: Galaxies under the single profile.
        prepared: Their stamps.
        scene: One of :data:`CHOICES`.
        seeds: Random seeds, one per galaxy.
        honest: Whether draws are moved to honest widths.
        ess: Required effective sample size for each hypothesis.
        method: ``"exact"`` or ``"laplace"``: Laplace's approximation of each evidence, and draws
            from Gaussians at the modes.
    """
    names = hypotheses_of(scene)
    found = {name: explore(refined, name, seeds, ess, method) for name in names[1:]}
    return [
        _record(refined, i, stamp, scene, [found[name][i] for name in names[1:]], honest)
        for i, stamp in enumerate(prepared)
    ]


def _record(
    refined: RefinedDraws,
    row: int,
    prepared: PreparedStamp,
    scene: str,
    others: list[Hypothesis],
    honest: bool,
) -> SceneRecord:
    galaxy = refined.galaxies[row]
    log_z = {"sersic": galaxy.log_evidence} | {h.name: h.log_evidence for h in others}
    errors = {"sersic": galaxy.log_evidence_error}
    errors |= {h.name: h.log_evidence_error for h in others}
    peaks = {"sersic": galaxy.peak}
    peaks |= {h.name: h.log_likelihood for h in others}
    closest = max(peaks, key=peaks.__getitem__)
    by_name = {h.name: h for h in others}

    def sandwich_of(name: str) -> Sandwich:
        if name == "sersic":
            coordinates = refined.likelihood.coordinates
            return sandwich_at(refined.likelihood, row, coordinates.project(galaxy.best))
        h = by_name[name]
        other = refined.likelihood.under(h.seen)
        other.freeze(torch.tensor([row]), h.optimum[None])
        return sandwich_at(other, row, h.optimum)

    bread = sandwich_of(closest)
    weighed = tempered(log_z, peaks, temper(bread))
    best = max(weighed, key=weighed.__getitem__) if scene == "auto" else scene
    single_best = SceneRecord(tuple(log_z), best, log_z, errors, weighed, {}, {}, None)
    if best == "sersic":
        return single_best
    h = by_name[best]
    single = refined.likelihood.box.to_physical(galaxy.mean())
    weights = torch.softmax(h.log_weights, 0)
    draws = noise_draws = _user_columns(h.coordinates, h.u, single, prepared)
    own = bread if best == closest else sandwich_of(best)
    if honest and bool(own.judged[0]):
        mean = weights @ h.u
        moved = (mean + (h.u - mean) @ own.transform[0].T).clamp(-W_MAX, W_MAX)
        draws = _user_columns(h.coordinates, moved, single, prepared)
    return replace(
        single_best,
        draws=draws,
        noise_draws=noise_draws,
        weights=weights.numpy(),
        ess=h.ess,
        khat=h.khat,
        num_modes=h.num_modes,
    )


def temper(bread: Sandwich) -> float:
    r"""Returns the tempering factor of ln L: tr(F H^-1) over tr(J H^-1), at most 1.

    It equals p / tr(J F^-1) if the parameters are determined by the data, not the prior.
    """
    inverse = torch.linalg.inv(bread.precision[0])
    stated = (bread.fisher[0] * inverse.mT).sum()
    seen = (bread.score_scatter[0] * inverse.mT).sum()
    return float((stated / seen).clamp(max=1.0))


def _user_columns(
    coordinates: GalaxyScene,
    u: Float[Tensor, "s f"],
    single: Float[Tensor, "7"],
    prepared: PreparedStamp,
) -> dict[str, np.ndarray]:
    """Returns draws of the sum and of every part, by column, in the user's units."""
    parts = {
        name: units.user_values(values, prepared) for name, values in coordinates.parts(u).items()
    }
    profiles = [p for p in parts.values() if p.shape[1] == NUM_PARAMETERS]
    points = [p for p in parts.values() if p.shape[1] != NUM_PARAMETERS]
    flux = torch.stack([10.0 ** (-0.4 * p[:, MAGNITUDE]) for p in parts.values()]).sum(0)
    columns = {
        "magnitude": -2.5 * flux.log10(),
        "effective_radius": half_light_radius(
            profiles, single[AXIS_RATIO], single[POSITION_ANGLE], points
        ),
        "center_x": profiles[0][:, CENTER_X],
        "center_y": profiles[0][:, CENTER_Y],
    }
    found = {name: column.numpy() for name, column in columns.items()}
    found |= part_columns({name: values.numpy() for name, values in parts.items()})
    share = coordinates.share(u)
    if share is not None:
        name, values = share
        found[name] = values.numpy()
    return found
