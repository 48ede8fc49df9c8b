"""Galaxies that overlap, fitted together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from deeplegato_pp.errors import InputError, ShapeError
from deeplegato_pp.flags import Flag
from deeplegato_pp.inference.posterior.neighbours import Neighbours
from deeplegato_pp.inference.refine.evidence_beside import compare_beside
from deeplegato_pp.inference.refine.options import RefineOptions
from deeplegato_pp.inference.refine.together import fit_group, placed, refine_member
from deeplegato_pp.observation.observation import Observation
from deeplegato_pp.observation.preparation import PreparedStamp, prepare
from deeplegato_pp.scene.components import SersicCoordinates
from deeplegato_pp.scene.group import Group, about
from deeplegato_pp.scene.likelihood import Likelihood
from simulated_galaxies import BOX, make_psf

SIZE = 40
PLACES = ((-2.6, 0.3), (2.6, -0.3))
TRUTH = torch.tensor(
    [[22.6, 0.75, 1.0, 0.8, 30.0, *PLACES[0]], [22.9, 0.6, 1.5, 0.7, 110.0, *PLACES[1]]],
    dtype=torch.float64,
)


def a_blend(star: float = 0.0, radius: float | None = None) -> PreparedStamp:
    """Two galaxies 5 px apart, and a star in a corner if there is light for one.

    Args:
        star: Light of each pixel of the star.
        radius: Of the first galaxy in arcsec; None: as in `TRUTH`.
    """
    boxes = [about(BOX, *place) for place in PLACES]
    truth = TRUTH.clone()
    if radius is not None:
        truth[0, 1] = radius
        boxes[0] = replace(boxes[0], effective_radius=(0.5 * radius, 10.0))
    members = [SersicCoordinates(box) for box in boxes]
    group = Group(members)
    u = [m.box.to_normal(p[None]) for m, p in zip(members, truth, strict=True)]
    empty = Observation.from_array(
        np.zeros((SIZE, SIZE)), make_psf().numpy(), 1.0, pixel_scale=0.25, zero_point=30.5
    )
    likelihood = Likelihood.of([prepare(empty, SIZE)], BOX, coordinates=group)
    image = likelihood.render(0, torch.cat(u, 1), torch.float64)[0].numpy()
    image += np.random.default_rng(4).standard_normal(image.shape)
    image[4:7, 33:36] += star
    return prepare(
        Observation.from_array(image, make_psf().numpy(), 1.0, pixel_scale=0.25, zero_point=30.5),
        SIZE,
    )


def first_guess(own: int) -> tuple[torch.Tensor, Neighbours]:
    """What a network that sees one galaxy says of both: its size and light are those of the sum."""
    guess = torch.tensor([21.9, 1.2, 1.0, 0.6, 90.0, 0.0, 0.0], dtype=torch.float64)
    other = [*guess[:5].tolist(), *PLACES[1 - own]]
    return BOX.to_normal(guess[None])[0], Neighbours(np.array([other]), PLACES[own])


def refined(stamp: PreparedStamp, own: int, method: str = "exact"):
    w, neighbours = first_guess(own)
    return refine_member(
        Likelihood.of([stamp], BOX),
        stamp,
        w,
        neighbours,
        draws=400,
        method=method,
        ess=200.0,
        fixed=None,
        seed=own,
        options=RefineOptions(honest=True),
    )


def test_both_members_are_recovered_and_agree_on_the_evidence():
    stamp = a_blend()
    found = [refined(stamp, own) for own in (0, 1)]
    for own, draws in enumerate(found):
        galaxy = draws[0]
        truth = draws.likelihood.coordinates.own.box.to_normal(TRUTH[own][None])[0]
        pull = (galaxy.mean() - truth) / galaxy.std()
        assert float(pull.abs().max()) < 3.5
        assert not galaxy.flags & int(Flag.HIGH_KHAT | Flag.TENSION)
        assert galaxy.widening.judged
    first, second = (draws[0] for draws in found)
    tolerance = 0.3 + 4 * max(first.log_evidence_error, second.log_evidence_error)
    assert abs(first.log_evidence - second.log_evidence) < tolerance


def test_a_member_is_told_from_a_star_and_from_nothing():
    stamp = a_blend()
    found = compare_beside(refined(stamp, 0), 1.0)
    assert float(found.star_probability[0]) < 1e-3
    assert float(found.detection[0]) > 50.0
    star = refined(a_blend(radius=1e-4), 0)  # a point in the galaxy's place
    found = compare_beside(star, 1.0)
    assert float(found.star_probability[0]) > 0.7
    assert float(found.star_log_evidence[0] - found.blank_log_evidence[0]) > 50.0


def test_light_that_is_no_members_is_masked():
    stamp = a_blend(star=60.0)
    likelihood = Likelihood.of([stamp], BOX)
    group, start = placed(BOX, stamp, *first_guess(0))
    found, masked = fit_group(likelihood, group, start)
    assert bool(found.converged[0])
    assert bool(masked.stamps.mask[0, 4:7, 33:36].all())
    assert not bool(masked.stamps.mask[0, 15:25, 12:28].any())
    assert not bool(likelihood.stamps.mask.any())


def test_the_approximate_method_serves_members_too():
    draws = refined(a_blend(), 0, "laplace")
    truth = BOX.to_normal(TRUTH[:1])[0]
    assert float(((draws[0].mean() - truth) / draws[0].std()).abs().max()) < 3.5
    assert draws[0].method == "laplace"


@pytest.mark.parametrize(
    ("values", "error", "said"),
    [
        ([[22.0, 1.0, 1.0]], ShapeError, "seven parameters"),
        (np.zeros((0, 7)), ShapeError, "seven parameters"),
        ([[22.0, 1.0, 1.0, 0.5, 0.0, np.nan, 0.0]], InputError, "finite"),
        ([[22.0, 1.0, 1.0, 0.5, 0.0, 0.5, 0.0]], InputError, "cannot be told apart"),
        (np.full((5, 7), 9.0) + np.arange(5)[:, None], InputError, "at most 4"),
    ],
)
def test_neighbours_that_cannot_be(values, error, said):
    with pytest.raises(error, match=said):
        Neighbours(np.array(values))
