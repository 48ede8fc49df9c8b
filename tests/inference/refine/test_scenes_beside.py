"""Several components of a galaxy whose neighbour is fitted with it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from deeplegato_pp.inference.posterior.neighbours import Neighbours
from deeplegato_pp.inference.refine.options import RefineOptions
from deeplegato_pp.inference.refine.scenes import compare_scenes
from deeplegato_pp.inference.refine.together import refine_member
from deeplegato_pp.observation.observation import Observation
from deeplegato_pp.observation.preparation import prepare
from deeplegato_pp.scene.components import SersicCoordinates
from deeplegato_pp.scene.galaxy_scene import GalaxyScene
from deeplegato_pp.scene.group import Group, about
from deeplegato_pp.scene.likelihood import Likelihood
from simulated_galaxies import BOX, make_psf

SIZE = 40
PLACE = (6.0, 1.0)


def test_a_point_is_found_in_a_host_beside_a_neighbour():
    scene = GalaxyScene("sersic+point", BOX)
    neighbour = SersicCoordinates(about(BOX, *PLACE))
    group = Group([scene, neighbour])
    host = torch.tensor([[21.5, 0.3, 1.0, 1.0, 0.8, 30.0, 0.2, 0.1]], dtype=torch.float64)
    beside = torch.tensor([[22.0, 0.6, 1.5, 0.7, 110.0, *PLACE]], dtype=torch.float64)
    u = torch.cat([scene.scene.to_coordinates(host), neighbour.box.to_normal(beside)], 1)

    def observed(image: np.ndarray):
        seen = Observation.from_array(
            image, make_psf().numpy(), 1.0, pixel_scale=0.25, zero_point=30.5
        )
        return prepare(seen, SIZE)

    empty = Likelihood.of([observed(np.zeros((SIZE, SIZE)))], BOX, coordinates=group)
    image = empty.render(0, u, torch.float64)[0].numpy()
    stamp = observed(image + np.random.default_rng(5).standard_normal(image.shape))
    guess = torch.tensor([[21.5, 0.8, 2.0, 0.8, 30.0, 0.0, 0.0]], dtype=torch.float64)
    draws = refine_member(
        Likelihood.of([stamp], BOX),
        stamp,
        BOX.to_normal(guess)[0],
        Neighbours(beside.numpy()),
        draws=400,
        method="exact",
        ess=200.0,
        fixed=None,
        seed=0,
        options=RefineOptions(),
    )
    (record,) = compare_scenes(draws, [stamp], "sersic+point", [1], honest=False, ess=150.0)
    share = record.draws["point_to_total"]
    mean = float(record.weights @ share)
    width = float(np.sqrt(record.weights @ (share - mean) ** 2))
    assert mean == pytest.approx(0.3, abs=4 * width)
    assert width < 0.1
    assert record.log_evidence["sersic+point"] > record.log_evidence["sersic"] + 3.0
    assert record.khat < 0.8
