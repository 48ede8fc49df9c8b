"""Where the periodic copies' light is left out, it is as little as was promised."""

from __future__ import annotations

import pytest
import torch

from deeplegato_pp.scene.components import SersicCoordinates
from deeplegato_pp.scene.prior import PriorBox
from deeplegato_pp.scene.render.renderer import PLANS, choose_plans, period_length, render_sersic
from deeplegato_pp.scene.render.wings import NEGLIGIBLE, Galaxies, psf_moments, wings, wings_matter
from scene.render.galsim_reference import AnalyticPSF

SIZE = 64


def prior_galaxies(number: int) -> Galaxies:
    generator = torch.Generator().manual_seed(5)
    w = torch.randn(number, 7, generator=generator, dtype=torch.float64)
    return Galaxies(*SersicCoordinates(PriorBox()).profiles(w)[0])


@pytest.mark.parametrize("negligible", [0.0, 1e-4])
def test_copies_left_out_shed_next_to_nothing(negligible):
    galaxies = prior_galaxies(300)
    psf = AnalyticPSF("gaussian", 3.0).samples(1, 21)
    moments = psf_moments(psf, 1, True)
    peak = render_sersic(*galaxies, psf, SIZE).amax((1, 2))
    chosen = choose_plans(galaxies.radius, galaxies.axis_ratio, SIZE)
    left_out = 0
    for index, plan in enumerate(PLANS):
        rows = (chosen == index).nonzero()[:, 0]
        length = period_length(SIZE, psf.shape, 1, plan)
        skipped = rows[~wings_matter(galaxies.at(rows), moments, SIZE, length, negligible)]
        if len(skipped):
            light = wings(galaxies.at(skipped), moments, SIZE, length, plan).abs().amax((1, 2))
            allowed = torch.maximum(NEGLIGIBLE * peak[skipped], torch.tensor(negligible))
            assert bool((light < allowed).all())
            left_out += len(skipped)
    assert left_out > 100


def test_a_mixed_batch_equals_its_galaxies_one_by_one():
    galaxies = prior_galaxies(12)
    psf = AnalyticPSF("gaussian", 3.0).samples(1, 21)
    together = render_sersic(*galaxies, psf, SIZE)
    for i in range(12):
        alone = render_sersic(*galaxies.at(slice(i, i + 1)), psf, SIZE)[0]
        torch.testing.assert_close(together[i], alone, rtol=1e-9, atol=1e-9)
