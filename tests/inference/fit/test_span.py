"""Sums of rendered images: transforms tell which sum an image is, and how nearly it is one."""

from __future__ import annotations

import math

import pytest
import torch

from deeplegato_pp.inference.fit.fit import fit
from deeplegato_pp.inference.fit.modes import mixture_at
from deeplegato_pp.inference.fit.span import ImageSpan, Reference, spanning
from deeplegato_pp.scene.galaxy_scene import GalaxyScene
from simulated_galaxies import BOX, coordinates_of, simulate

NODES = 40


@pytest.fixture(scope="module", params=[math.inf, 5.0], ids=["fixed", "photons"])
def spanned(request):
    w = coordinates_of(magnitude=21.0)
    likelihood = simulate(w[None], gain=request.param)
    mode = fit(likelihood, torch.tensor([0]), w[None])
    generator = torch.Generator().manual_seed(3)
    u = mixture_at(mode, widened=False).sample([200], generator)[0]
    reference = Reference(likelihood, 0, mode.u[0], mode.image[0])
    features = reference.features(u)
    images = (likelihood.render(0, u, torch.float64) - mode.image[0]).flatten(1)
    return likelihood, reference, u, features, images


def test_distances_of_transforms_are_those_of_images(spanned):
    _, reference, _, features, images = spanned
    expected = reference.scale * images.norm(dim=1)
    ratio = features.norm(dim=1) / expected
    assert float((ratio - 1.0).abs().max()) < 0.1


def test_sums_tell_ln_l_where_they_come_near(spanned):
    likelihood, reference, u, features, images = spanned
    chosen = spanning(features, None, NODES, 0.0)
    span = ImageSpan.of(reference, features[chosen], images[chosen])
    shares, distance = span.shares(features)
    exact = likelihood.log_likelihood_row(0, u, torch.float64)
    error = span.log_likelihood(shares) - exact
    assert float(error[chosen].abs().max()) < 0.02  # 2e-3 is granted to expansions, at the probes
    near = (distance < 0.05) & (exact > exact.max() - 12.0)
    assert float(near.double().mean()) > 0.8
    assert float(error[near].abs().max()) < 0.3


def test_another_flux_needs_no_other_image(spanned):
    likelihood, reference, u, features, images = spanned
    span = ImageSpan.of(reference, features[:1], images[:1])
    brighter = u[:1].clone()
    brighter[0, 0] -= 0.001
    shares, distance = span.shares(reference.features(brighter))
    assert float(distance) < 1e-6
    expected = likelihood.log_likelihood_row(0, brighter, torch.float64)
    torch.testing.assert_close(span.log_likelihood(shares), expected, atol=5e-3, rtol=0)


def test_points_are_chosen_until_all_others_are_near():
    generator = torch.Generator().manual_seed(0)
    plane = torch.randn(3, 20, generator=generator, dtype=torch.float64)
    points = torch.randn(50, 3, generator=generator, dtype=torch.float64) @ plane
    chosen = spanning(points, None, 10, 1e-6)
    assert len(set(chosen)) == len(chosen) == 3
    basis = torch.linalg.qr(points[chosen[:2]].T).Q
    assert len(spanning(points, basis, 10, 1e-6)) == 1
    assert spanning(points, None, 2, 1e-6) == chosen[:2]


def test_components_add_up():
    w = coordinates_of(magnitude=20.0)
    scene = GalaxyScene("sersic+point", BOX)
    likelihood = simulate(w[None]).under(scene)
    start = scene.starts(w[None])[0, 0]
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(60, len(start), generator=generator, dtype=torch.float64)
    u = start + 0.02 * noise
    image = likelihood.render(0, start[None], torch.float64)[0]
    reference = Reference(likelihood, 0, start, image)
    features = reference.features(u)
    images = (likelihood.render(0, u, torch.float64) - image).flatten(1)
    span = ImageSpan.of(reference, features[:50], images[:50])
    shares, distance = span.shares(features[50:])
    expected = likelihood.log_likelihood_row(0, u[50:], torch.float64)
    error = (span.log_likelihood(shares) - expected).abs()
    assert float(distance.max()) < 0.1
    assert float(error.max()) < 0.3
