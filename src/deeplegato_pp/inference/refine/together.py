"""Joint fits of overlapping galaxies: optimum of the group, then the posterior of one member.

The optimum is that of all members on the stamp of the measured galaxy. Its curvature determines how
the others follow that galaxy (`scene.group`), whose seven coordinates are then sampled like those
of an isolated galaxy. A row therefore depends on its own stamp, its own list of neighbours and
their first guesses, and not on the results of other rows.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from scipy import ndimage
from scipy.optimize import nnls
from torch import Tensor

from deeplegato_pp.errors import NumericalError
from deeplegato_pp.inference.fit.fit import Fit, Stop, fit
from deeplegato_pp.inference.fit.neighbours import THRESHOLD, find_neighbours
from deeplegato_pp.inference.posterior.draws import RefinedDraws
from deeplegato_pp.inference.posterior.neighbours import Neighbours
from deeplegato_pp.inference.refine.engine import refine_batch
from deeplegato_pp.inference.refine.options import PIXEL_BUDGET, RefineOptions
from deeplegato_pp.inference.sampling.importance import StudentMixture
from deeplegato_pp.observation.preparation import PreparedStamp
from deeplegato_pp.scene import units
from deeplegato_pp.scene.batches import Batches
from deeplegato_pp.scene.group import LISTED, Group, Member, Placed, Surroundings, about
from deeplegato_pp.scene.likelihood import Likelihood
from deeplegato_pp.scene.parameters import CENTER_X, MAGNITUDE, NAMES, POSITION_ANGLE, RADIUS
from deeplegato_pp.scene.prior import PriorBox
from deeplegato_pp.scene.render.sersic_profile import ellipse_form

logger = logging.getLogger(__name__)

SHRUNK = (1.0, 0.5)
"""Initial radii of the group's search relative to first guesses, which for blends include the light
of both galaxies."""

_ROUNDS = 3
"""Number of searches of a group, each with the mask from the previous one."""

_STEPS, _FEWEST_STEPS = 100, 12
"""Maximum and minimum number of steps of a search: the fluxes of close pairs converge slowly."""

_EXTENT = 3.0
"""Radius within which light is attributed to a member before the group is fitted. [R_e]"""

_WIDENED = 1.5
"""Widths of the base proposal relative to those of the group's Gaussian."""

_INSIDE = 1e-3
"""Fraction of the prior's range by which first guesses are kept from its edges."""


def refine_member(
    likelihood: Likelihood,
    prepared: PreparedStamp,
    w: Float[Tensor, "7"],
    neighbours: Neighbours,
    *,
    draws: int,
    method: str,
    ess: float,
    fixed: Mapping[str, float] | None,
    seed: int,
    options: RefineOptions,
) -> RefinedDraws:
    """Computes the posterior of one galaxy with its fitted neighbours marginalised.

    Args:
        likelihood: Likelihood of the one galaxy.
        prepared: Its stamp.
        w: First guess of its coordinates.
        neighbours: The neighbours.
        draws: Number of draws of the base proposal.
        method: ``"exact"`` or ``"laplace"``.
        ess: Required effective sample size.
        fixed: Values of its fixed parameters, at the reference instrument.
        seed: Random seed.
        options: Settings of the engine.

    Raises:
        NumericalError: If the group's search does not converge.
    """
    group, start = placed(likelihood.box, prepared, w, neighbours, fixed)
    own, *rest = group.members
    found, masked = fit_group(likelihood, group, start, options.pixel_budget)
    around = Surroundings.of(Group(rest), found.u[0], found.covariance[0])
    member = Member(own, around)
    tril = torch.linalg.cholesky(found.covariance[0, : own.dim, : own.dim])
    base = StudentMixture(
        torch.ones(1, dtype=torch.float64), around.at[None], _WIDENED * tril[None]
    )
    generator = torch.Generator().manual_seed(seed)
    u, _ = base.sample([draws], generator)
    refined = refine_batch(
        masked,
        member.embed(u)[None],
        base.log_prob(u)[None],
        lambda _, x: base.log_prob(x.flatten(0, 1)).unflatten(0, x.shape[:2]),
        method=method,
        ess=ess,
        seeds=torch.tensor([seed]),
        options=replace(options, mask_neighbours=False),
        coordinates=member,
    )
    (galaxy,) = refined.galaxies
    galaxy.note_masked(masked.stamps.mask[0] & ~likelihood.stamps.mask[0])
    return refined


def placed(
    box: PriorBox,
    prepared: PreparedStamp,
    w: Float[Tensor, "7"],
    neighbours: Neighbours,
    fixed: Mapping[str, float] | None = None,
) -> tuple[Group[Placed], Float[Tensor, " f"]]:
    """Returns the coordinates of a group and a starting point at the listed positions.

    Args:
        box: Prior box of the measured galaxy, at the reference instrument.
        prepared: Its stamp.
        w: First guess of its coordinates.
        neighbours: The neighbours.
        fixed: Values of its fixed parameters, at the reference instrument.
    """
    guess = units.reference_params(torch.from_numpy(neighbours.values), prepared)
    place = torch.tensor(prepared.center_from_user(*neighbours.place), dtype=torch.float64)
    places = torch.cat([place[None], guess[:, CENTER_X:]])
    apart = torch.cdist(places, places)
    spread = LISTED * (apart + torch.diag(torch.full_like(apart[0], math.inf))).amin(1)
    first = box.to_physical(w[None])[0]
    first[CENTER_X:] = place
    boxes = [box, *(about(box, *p.tolist()) for p in places[1:])]
    members = [
        Placed(b, (float(p[0]), float(p[1])), float(s), fixed if i == 0 else None)
        for i, (b, p, s) in enumerate(zip(boxes, places, spread, strict=True))
    ]
    values = [first, *guess]
    starts = [m.project(_inside(m.box, v)) for m, v in zip(members, values, strict=True)]
    return Group(members), torch.cat(starts)


def fit_group(
    likelihood: Likelihood,
    group: Group[Placed],
    start: Float[Tensor, " f"],
    budget: float = PIXEL_BUDGET,
) -> tuple[Fit, Likelihood]:
    """Finds the optimum of a group, one row, and the likelihood with foreign light masked.

    Pixels more than 5 sigma from the group's image and outside 1.5 R_e of every member are masked,
    and the search is repeated until the mask does not change.

    Args:
        likelihood: Likelihood of one stamp.
        group: Galaxies of the group.
        start: Starting point.
        budget: Approximate maximum number of pixels to render.

    Raises:
        NumericalError: If the search does not converge.
    """
    given = likelihood.stamps.mask.clone()
    masked = likelihood.under(group).replace(mask=given | foreign(likelihood, group, start))
    starts = [_shrunk(group, start, factor) for factor in SHRUNK]
    for _ in range(_ROUNDS):
        batches = Batches(masked)
        points = torch.stack([with_best_fluxes(batches, group, u) for u in starts])
        rows = torch.zeros(len(points), dtype=torch.long)
        cost = float(batches.cost(rows, points).sum())
        steps = min(_STEPS, max(_FEWEST_STEPS, int(budget / (_ROUNDS * cost))))
        found = fit(masked, rows, points, stop=Stop(iterations=steps), batches=batches)
        best = found[found.log_posterior.argmax()[None]]
        mask = given | _unexplained(masked, group, given, best)
        if bool((mask == masked.stamps.mask).all()):
            break
        masked, starts = masked.replace(mask=mask), [best.u[0]]
    if not bool(best.converged[0]):
        raise NumericalError(
            f"the fit of {len(group.members)} galaxies together did not converge. Are their "
            "positions right?"
        )
    return best, masked


def with_best_fluxes(
    batches: Batches, group: Group[Placed], u: Float[Tensor, " f"]
) -> Float[Tensor, " f"]:
    """Returns a point with the best-fitting non-negative fluxes; other parameters are unchanged.

    Args:
        batches: Renders of the group's stamp.
        group: Galaxies of the group; the first coordinate of each is that of its magnitude.
        u: Point.
    """
    likelihood = batches.likelihood
    parts = [part.clone() for part in group.split(u)]
    images = [
        likelihood.under(m).render(0, part[None], torch.float64)[0]
        for m, part in zip(group.members, parts, strict=True)
    ]
    s = likelihood.stamps
    weight = torch.where(s.mask[0], 0.0, 1.0 / s.sigma[0])
    data = torch.where(s.mask[0], 0.0, s.image[0])
    columns = torch.stack([(image * weight).flatten() for image in images], 1)
    shares, _ = nnls(columns.numpy(), (data * weight).flatten().numpy())
    for member, part, share in zip(group.members, parts, shares, strict=True):
        if "magnitude" in member.fixed:
            continue
        physical = member.box.to_physical(member.embed(part[None]))[0]
        physical[MAGNITUDE] = physical[MAGNITUDE] - 2.5 * math.log10(max(float(share), 1e-4))
        part[:] = member.project(_inside(member.box, physical))
    return torch.cat(parts)


def foreign(
    likelihood: Likelihood, group: Group[Placed], u: Float[Tensor, " f"]
) -> Bool[Tensor, "1 n n"]:
    """Returns light far from every member of a group: pixels 5 sigma above the sky.

    Args:
        likelihood: Likelihood of one stamp.
        group: Galaxies of the group.
        u: Their coordinates.
    """
    s = likelihood.stamps
    outside = torch.ones_like(s.mask)
    for profiles in group.galaxies(u[None]):
        outside[0] &= _outside(profiles, likelihood.size, _EXTENT)
    bright = (s.image > THRESHOLD * s.sigma) & ~s.mask & outside
    return torch.from_numpy(ndimage.binary_dilation(bright.numpy(), iterations=2)) & outside


def _unexplained(
    likelihood: Likelihood, group: Group[Placed], given: Bool[Tensor, "1 n n"], best: Fit
) -> Bool[Tensor, "1 n n"]:
    """Returns pixels that deviate from the group's image, outside 1.5 R_e of all members."""
    found = torch.ones_like(given[0])
    for member, part in zip(group.members, group.split(best.u[0]), strict=True):
        w = member.embed(part)
        alone = likelihood.under(member)
        found &= find_neighbours(alone, 0, given[0], best.image[0], 0.0, w)
    return found[None]


def _outside(profiles: Float[Tensor, "c 7 1"], size: int, scale: float) -> Bool[Tensor, "n n"]:
    _, radius, _, q, angle, x, y = profiles[0, :, 0]
    grid = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    dy, dx = torch.meshgrid(grid - y, grid - x, indexing="ij")
    xx, xy, yy = ellipse_form(scale * radius + 2.0, q, angle)
    return xx * dx**2 + xy * dx * dy + yy * dy**2 > 1.0


def _shrunk(group: Group[Placed], u: Float[Tensor, " f"], factor: float) -> Float[Tensor, " f"]:
    """Returns a point with all radii multiplied by a factor, within the priors."""
    parts = []
    for member, part in zip(group.members, group.split(u), strict=True):
        physical = member.box.to_physical(member.embed(part[None]))[0]
        physical[RADIUS] = physical[RADIUS] * factor
        parts.append(member.project(_inside(member.box, physical)))
    return torch.cat(parts)


def _inside(box: PriorBox, physical: Float[Tensor, "7"]) -> Float[Tensor, "7"]:
    """Returns coordinates of physical values; those beyond the prior are moved slightly inside."""
    edges = torch.tensor([getattr(box, name) for name in NAMES], dtype=torch.float64)
    margin = _INSIDE * (edges[:, 1] - edges[:, 0])
    kept = torch.minimum(torch.maximum(physical, edges[:, 0] + margin), edges[:, 1] - margin)
    kept[POSITION_ANGLE] = physical[POSITION_ANGLE]
    return box.to_normal(kept[None])[0]
