"""The losses."""

from __future__ import annotations

import pytest
import torch

from deeplegato_pp.errors import ConfigError
from deeplegato_pp.training.losses import (
    NPELoss,
    PhysicsInformedLoss,
    ReconstructionLoss,
    UncertaintyCalibrationLoss,
)


@pytest.mark.parametrize(("weight", "expected"), [(0.0, 2.0), (1.0, 7.0), (0.1, 2.5)])
def test_it_is_the_weighted_mean_of_both_terms(weight, expected):
    terms = {"flow": torch.tensor([1.0, 3.0]), "gaussian": torch.tensor([4.0, 6.0])}
    assert float(NPELoss(weight)(terms)) == pytest.approx(expected)


def test_a_nan_is_not_hidden():
    terms = {"flow": torch.tensor([1.0, torch.nan]), "gaussian": torch.zeros(2)}
    assert bool(NPELoss()(terms).isnan())


@pytest.mark.parametrize(("kind", "expected"), [("mse", 4.0), ("l1", 2.0), ("huber", 1.5)])
def test_reconstruction_counts_unmasked_pixels_only(kind, expected):
    image = torch.tensor([[0.0, 1.0, 5.0]], requires_grad=True)
    target = torch.tensor([[2.0, 3.0, torch.inf]])
    mask = torch.tensor([[False, False, True]])
    loss = ReconstructionLoss(kind)(image, target, mask)
    assert float(loss.detach()) == pytest.approx(expected)
    loss.backward()
    assert image.grad[0, 2] == 0.0
    assert bool((image.grad[0, :2] < 0).all())
    seen = image.detach()
    assert float(ReconstructionLoss(kind)(seen, seen + 1.0)) > 0.0
    assert float(ReconstructionLoss(kind)(seen, target, torch.ones(1, 3).bool())) == 0.0


def test_an_unknown_reconstruction_is_named():
    with pytest.raises(ConfigError, match="one of mse, l1, huber, got 'ssim'"):
        ReconstructionLoss("ssim")


def test_the_relation_pulls_radii_towards_itself():
    params = torch.tensor([[21.5, 2.0, 1, 0.5, 0, 0, 0], [24.0, 0.1, 1, 0.5, 0, 0, 0]])
    params.requires_grad_()
    loss = PhysicsInformedLoss()(params)
    loss.backward()
    assert params.grad[0, 1] > 0 > params.grad[1, 1]
    assert not bool(params.grad[:, 2:].any())
    off = torch.tensor(2.0).log10() / 0.2
    assert float(PhysicsInformedLoss()(params.detach()[:1])) == pytest.approx(float(off**2 / 2))


def gaussian_problem(width: float, draws: int = 64, batch: int = 256):
    """Truths about a known centre with width one, and draws with another width."""
    generator = torch.Generator().manual_seed(0)
    centre = torch.randn(batch, 2, generator=generator)
    truth = centre + torch.randn(batch, 2, generator=generator)
    noise = torch.randn(batch, draws, 2, generator=generator)
    return centre[:, None] + width * noise, truth


@pytest.mark.parametrize("width", [0.3, 3.0])
def test_miscalibration_is_least_where_draws_are_as_wide_as_truths(width):
    loss = UncertaintyCalibrationLoss()
    assert float(loss(*gaussian_problem(1.0))) < 0.1 * float(loss(*gaussian_problem(width)))


def test_miscalibration_finds_a_shift():
    draws, truth = gaussian_problem(1.0)
    loss = UncertaintyCalibrationLoss()
    assert float(loss(draws + 1.0, truth)) > 10 * float(loss(draws, truth))


@pytest.mark.parametrize("start", [0.3, 3.0])
def test_its_gradient_mends_the_width_of_a_posterior(start):
    log_width = torch.tensor(start).log().requires_grad_()
    optimizer = torch.optim.Adam([log_width], lr=0.1)
    loss = UncertaintyCalibrationLoss()
    unit, truth = gaussian_problem(1.0)
    centre = unit.detach().mean(1, keepdim=True)
    gradients = []
    for _ in range(80):
        optimizer.zero_grad()
        loss(centre + log_width.exp() * (unit - centre), truth).backward()
        gradients.append(float(log_width.grad))
        optimizer.step()
    assert gradients[0] * (start - 1.0) > 1e-3
    assert log_width.exp().item() == pytest.approx(1.0, abs=0.15)


def test_the_likelihood_loss_takes_plain_densities():
    log_prob, gaussian = torch.tensor([-1.0, -3.0]), torch.tensor([-4.0, -6.0])
    assert float(NPELoss()(log_prob)) == 2.0
    assert float(NPELoss(0.1)(log_prob, gaussian)) == pytest.approx(2.5)
    terms = {"flow": -log_prob, "gaussian": -gaussian}
    assert float(NPELoss(0.1)(terms)) == pytest.approx(2.5)
