"""Our own pass through the coupling splines against zuko's."""

from __future__ import annotations

import pytest
import torch
import zuko
from torch import nn

from deeplegato_pp.models import coupling_splines
from deeplegato_pp.models.coupling_splines import BOUND, push, rational_quadratic

BINS = 6


@pytest.fixture
def flow() -> zuko.flows.NICE:
    """Couplings of random splines, far from the identity.

    In double precision: the steepest of their slopes amplify the rounding of single precision to
    a thousandth and more, on some processors beyond any tolerance that would still tell a mistake.
    """
    torch.manual_seed(0)
    flow = zuko.flows.NICE(
        5,
        3,
        transforms=4,
        hidden_features=(16, 16),
        univariate=zuko.transforms.MonotonicRQSTransform,
        shapes=[(BINS,), (BINS,), (BINS - 1,)],
    )
    for parameter in flow.parameters():
        nn.init.normal_(parameter, std=0.3)
    return flow.double()


@pytest.mark.parametrize("inverse", [False, True])
@pytest.mark.parametrize(("galaxies", "number"), [(1, 1), (3, 40), (2, 150), (7, 30)])
def test_equals_zuko(flow, monkeypatch, inverse, galaxies, number):
    """In any cut into blocks: several galaxies in one, and several of one galaxy."""
    monkeypatch.setattr(coupling_splines, "BLOCK", 100)
    generator = torch.Generator().manual_seed(1)
    embedding = torch.randn(galaxies, 3, generator=generator).double()
    points = 3.0 * torch.randn(galaxies, number, 5, generator=generator).double()  # some outside
    transform = flow.transform(embedding[:, None])
    ends, log = (transform.inv if inverse else transform).call_and_ladj(points)
    own, own_log = push(flow.transform.transforms, embedding, points, inverse=inverse)
    torch.testing.assert_close(own, ends, atol=1e-9, rtol=0)
    torch.testing.assert_close(own_log, log, atol=1e-9, rtol=0)


def test_there_and_back(flow):
    embedding, points = torch.randn(4, 3).double(), 2.0 * torch.randn(4, 50, 5).double()
    ends, there = push(flow.transform.transforms, embedding, points, inverse=False)
    again, back = push(flow.transform.transforms, embedding, ends, inverse=True)
    torch.testing.assert_close(again, points, atol=1e-8, rtol=0)
    torch.testing.assert_close(there, -back, atol=1e-7, rtol=0)


def test_derivative_and_gradients():
    generator = torch.Generator().manual_seed(2)
    raw = torch.randn(1, 3 * BINS - 1, 9, generator=generator, dtype=torch.float64)
    values = torch.linspace(-6.0, 6.0, 9, dtype=torch.float64)[None].requires_grad_()
    for inverse in (False, True):
        image, log = rational_quadratic(raw, values, BINS, inverse=inverse)
        (slope,) = torch.autograd.grad(image.sum(), values)
        torch.testing.assert_close(log.exp(), slope)
    raw.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda r: rational_quadratic(r, values.detach() + 0.1, BINS, inverse=True), raw
    )


def test_identity_outside():
    raw = torch.randn(2, 3 * BINS - 1, 4)
    values = torch.tensor([[-2 * BOUND, -BOUND - 1e-3, BOUND + 1e-3, 2 * BOUND]]).expand(2, 4)
    for inverse in (False, True):
        image, log = rational_quadratic(raw, values, BINS, inverse=inverse)
        torch.testing.assert_close(image, values)
        assert not log.any()
