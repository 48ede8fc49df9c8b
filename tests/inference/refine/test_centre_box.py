"""The centre's prior of exact posteriors."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from deeplegato_pp import Observation
from deeplegato_pp.data import SersicSimulator
from deeplegato_pp.inference.predictor import Predictor
from deeplegato_pp.inference.refine.centre_box import Moved, centred
from deeplegato_pp.observation.effective_psf import moffat_psf
from deeplegato_pp.observation.preparation import prepare
from deeplegato_pp.scene.prior import PriorBox
from fake_model import TRUTH, FakeModel

BOX = PriorBox()


def stamp(side: int, image: np.ndarray | None = None) -> Observation:
    psf, _ = moffat_psf(3.0)
    image = np.zeros((side, side)) if image is None else image
    return Observation.from_array(image, psf, 1.0, pixel_scale=0.25, zero_point=30.5)


def test_an_even_side_leaves_the_box_as_it_is():
    assert centred(BOX, prepare(stamp(64), 64)) is BOX


@pytest.mark.parametrize("side", [63, 71])
def test_of_an_odd_side_the_bounds_lie_about_the_users_centre(side):
    prepared = prepare(stamp(side), 64)
    box = centred(BOX, prepared)
    for name, axis in (("center_x", 0), ("center_y", 1)):
        edges = [prepared.center_to_user(v, v)[axis] for v in getattr(box, name)]
        assert edges == pytest.approx([-5.0, 5.0])


def test_densities_are_those_of_the_same_places():
    new = PriorBox(center_x=(-4.5, 5.5), center_y=(-5.5, 4.5))
    w = torch.randn(50, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    moved = Moved(BOX, new)
    there, log_prob = moved.to_new(w, BOX.log_prior(w))
    kept = (there.abs() < 8).all(-1)
    assert 40 < int(kept.sum()) < 50  # some lie beyond the new edge
    physical = BOX.to_physical(w)
    assert torch.allclose(new.to_physical(there[kept]), physical[kept])
    expected = BOX.log_prior(w) + BOX.log_jacobian(w) - new.log_jacobian(there)
    assert torch.allclose(log_prob[kept], expected[kept])
    back, change = moved.to_old(there[kept])
    assert torch.allclose(back, w[kept], atol=1e-6)
    assert torch.allclose(BOX.log_prior(back) + change, log_prob[kept])
    beyond = there[:1].clone()
    beyond[0, 5] = 2.5  # +5.4 px, which the old box does not reach
    assert float(moved.to_old(beyond)[1]) < -1e3


def test_a_galaxy_near_the_edge_is_found_where_it_is():
    """Half a pixel nearer than the network's prior reaches."""
    truth = TRUTH.clone()
    truth[5:] = torch.tensor([4.8, 0.0])
    psf, _ = moffat_psf(3.0)
    image = SersicSimulator(63).render(truth[None], torch.from_numpy(psf))[0]
    image = image + torch.randn(63, 63, generator=torch.Generator().manual_seed(1))
    known = TRUTH.clone()
    known[5:] = torch.tensor([4.2, -0.5])  # where the network, on its stamp, has it
    model = FakeModel(known, 0.05)
    model.image_size = 64
    predictor = Predictor(model, "cpu")
    network = predictor.posterior([stamp(63, image.numpy())], 100, widths="noise")
    refined = predictor.refine(network, widths="noise", star_odds=None)
    (row,) = refined.rows()
    assert row["prior_center_x_lower"] == pytest.approx(-5.0)
    assert row["prior_center_x_upper"] == pytest.approx(5.0)
    assert row["center_x"] == pytest.approx(4.8, abs=4 * row["center_x_std"])
    assert row["center_x_std"] < 0.1
    assert math.isfinite(row["log_evidence"])
