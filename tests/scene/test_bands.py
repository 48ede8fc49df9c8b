"""One galaxy in several bands: coordinates, frames, and the likelihood of all bands together."""

from __future__ import annotations

import math

import pytest
import torch

from deeplegato_pp.errors import ConfigError, ShapeError
from deeplegato_pp.inference.fit.fit import fit
from deeplegato_pp.inference.fit.structure import joint_sandwich_at
from deeplegato_pp.scene.bands import (
    CHANGES,
    STRUCTURES,
    BandCoordinates,
    BandFrame,
    log_positions,
    to_box,
)
from deeplegato_pp.scene.components import SersicCoordinates
from deeplegato_pp.scene.joint import JointBatches, JointLikelihood
from simulated_galaxies import BOX, SIZE, coordinates_of, empty_likelihood

WAVES = (0.48, 0.62, 0.76)
TURNED = BandFrame.of_matrix(((0.0, -0.8), (0.8, 0.0)), (0.3, -0.2), 0.8)
MIRRORED = BandFrame.of_matrix(((-1.0, 0.0), (0.0, 1.0)), (0.1, 0.4), 1.0)
FRAMES = (BandFrame(), TURNED, MIRRORED)


def parameters(*values: float) -> torch.Tensor:
    return torch.tensor([values], dtype=torch.float64)


def observed(coordinates: BandCoordinates, u: torch.Tensor, seed: int = 0) -> JointLikelihood:
    """A galaxy seen in every band of its coordinates, with noise."""
    generator = torch.Generator().manual_seed(seed)
    bands = []
    for k in range(len(coordinates.frames)):
        band = empty_likelihood(1, math.inf, 0.02)
        image = band.under(coordinates.view(k)).render(0, u[None], torch.float64)[0]
        noise = torch.randn(image.shape, generator=generator, dtype=torch.float64)
        band.stamps.image[0] = image + noise
        bands.append(band)
    return JointLikelihood(bands, coordinates)


def test_a_frame_turns_shifts_scales_and_mirrors():
    values = parameters(22.0, 1.0, 2.0, 0.5, 30.0, 1.0, 2.0)
    turned = TURNED.of_band(values)[0]
    expected = parameters(22.0, 0.8, 2.0, 0.5, 120.0, -1.6 + 0.3, 0.8 - 0.2)[0]
    torch.testing.assert_close(turned, expected)
    mirrored = MIRRORED.of_band(values)[0]
    torch.testing.assert_close(mirrored[4:], parameters(150.0, -0.9, 2.4)[0])
    for frame in FRAMES:
        torch.testing.assert_close(frame.in_frame(frame.of_band(values)), values)


@pytest.mark.parametrize("frame", FRAMES)
def test_a_frames_image_is_that_of_the_moved_pixels(frame):
    """The light at a point of the frame is that at the point's place on the band's stamp."""
    coordinates = BandCoordinates(BOX, [BandFrame(), frame])
    u = coordinates.project(coordinates_of(n=1.0, q=0.5, angle=25.0, x=0.0, y=0.0)[None])
    _, radius, n, q, angle, x, y = coordinates.view(1).profiles(u)[0, :, 0].tolist()
    _, radius0, _, _, angle0, _, _ = coordinates.view(0).profiles(u)[0, :, 0].tolist()
    along = torch.tensor([-math.sin(math.radians(angle0)), math.cos(math.radians(angle0))])
    end = frame.center(*(radius0 * along).double())
    there = torch.tensor([-math.sin(math.radians(angle)), math.cos(math.radians(angle))])
    step = torch.stack([end[0] - x, end[1] - y]).float()
    assert float(step.norm()) == pytest.approx(radius, rel=1e-5)
    assert abs(float(step @ there)) == pytest.approx(radius, rel=1e-5)
    assert (n, q) == (pytest.approx(1.0), pytest.approx(0.5))


@pytest.mark.parametrize("structure", STRUCTURES)
def test_what_bands_share(structure):
    coordinates = BandCoordinates(BOX, FRAMES, structure, WAVES)
    generator = torch.Generator().manual_seed(1)
    u = 0.5 * torch.randn(5, coordinates.dim, generator=generator, dtype=torch.float64)
    values = torch.stack([coordinates.values(u, k) for k in range(3)])
    torch.testing.assert_close(values[0, :, 5:], values[2, :, 5:])
    assert not torch.allclose(values[0, :, 0], values[1, :, 0])
    same = torch.allclose(values[0, :, 1:5], values[1, :, 1:5])
    assert same == (structure == "shared")
    assert values.shape == (3, 5, 7)
    log_r = values[:, :, 1].log()
    slope = (log_r[1] - log_r[0]) / math.log(0.62 / 0.48)
    steady = torch.allclose(slope, (log_r[2] - log_r[1]) / math.log(0.76 / 0.62))
    assert steady == (structure != "free")


def test_the_prior_of_a_change_is_as_stated():
    coordinates = BandCoordinates(BOX, FRAMES, "linear", WAVES)
    u = torch.zeros(1, coordinates.dim, dtype=torch.float64)
    u[0, -4] = 1.0  # one standard deviation in ln R_e
    change = coordinates.values(u, 2)[0, 1].log() - coordinates.values(u, 0)[0, 1].log()
    assert float(change) == pytest.approx(CHANGES[0])


def test_no_value_leaves_the_box():
    coordinates = BandCoordinates(BOX, FRAMES, "linear", WAVES)
    u = torch.full((1, coordinates.dim), 8.0, dtype=torch.float64)
    for k in range(3):
        assert bool(BOX.contains(coordinates.values(u, k)).all())


@pytest.mark.parametrize("structure", STRUCTURES)
def test_starts_are_means_of_what_is_shared(structure):
    coordinates = BandCoordinates(BOX, FRAMES, structure, WAVES)
    w = torch.stack(
        [coordinates_of(21.0, n=1.0), coordinates_of(22.0, n=4.0), coordinates_of(23.0)]
    )
    weight = torch.ones_like(w)
    weight[1] = 1e9
    u = coordinates.combine(w, weight)
    found = torch.stack([coordinates.values(u[None], k)[0] for k in range(3)])
    torch.testing.assert_close(found[:, 0], torch.tensor([21.0, 22.0, 23.0], dtype=torch.float64))
    first = 1.0 if structure == "free" else 4.0
    assert float(found[0, 2]) == pytest.approx(first, rel=1e-4)
    assert float(found[1, 2]) == pytest.approx(4.0, rel=1e-4)


@pytest.mark.parametrize("structure", ["shared", "free"])
def test_the_density_in_physical_units(structure):
    coordinates = BandCoordinates(BOX, FRAMES[:2], structure)
    u = 0.3 * torch.ones(coordinates.dim, dtype=torch.float64)

    def physical(x: torch.Tensor) -> torch.Tensor:
        first, second = (coordinates.values(x[None], k)[0] for k in range(2))
        return torch.cat([first, second[:1] if structure == "shared" else second[:5]])

    jacobian = torch.autograd.functional.jacobian(physical, u)
    expected = -torch.linalg.slogdet(jacobian).logabsdet
    torch.testing.assert_close(coordinates.log_jacobian(u[None])[0], expected)


def test_changes_keep_their_own_units():
    shared, linear = (BandCoordinates(BOX, FRAMES, s, WAVES) for s in ("shared", "linear"))
    u = 0.3 * torch.ones(1, linear.dim, dtype=torch.float64)
    expected = shared.log_jacobian(u[:, : shared.dim])
    torch.testing.assert_close(linear.log_jacobian(u), expected)


def test_wavelengths_are_needed_and_checked():
    with pytest.raises(ConfigError, match="one wavelength for each of 3 bands, got 0"):
        BandCoordinates(BOX, FRAMES, "linear")
    with pytest.raises(ConfigError, match="at least two of them different"):
        log_positions([0.5, 0.5], 2)
    with pytest.raises(ConfigError, match="expected one of shared, linear, free"):
        BandCoordinates(BOX, FRAMES, "quadratic")


def test_a_box_on_a_bands_stamp_holds_all_of_the_frames():
    own = TURNED.box(BOX)
    edges = torch.tensor([list(b) for b in (BOX.center_x, BOX.center_y)], dtype=torch.float64)
    for x in edges[0]:
        for y in edges[1]:
            values = parameters(20.0, 1.0, 1.0, 0.5, 10.0, float(x), float(y))
            assert bool(own.contains(TURNED.of_band(values)).all())
    far = to_box(own, parameters(20.0, 1e3, 1.0, 0.5, 10.0, 0.0, 0.0))
    assert float(far[0, 1]) == pytest.approx(8.0)


def test_the_likelihood_is_the_sum_of_the_bands():
    coordinates = BandCoordinates(BOX, FRAMES)
    u = coordinates.project(coordinates_of(magnitude=20.0)[None])
    joint = observed(coordinates, u[0])
    data = JointBatches(joint).data(torch.zeros(1, dtype=torch.long))
    images = JointBatches(joint).render(torch.zeros(1, dtype=torch.long), u)
    single = [band.log_likelihood_row(0, u)[0] for band in joint.bands]
    torch.testing.assert_close(data.log_likelihood(images)[0], torch.stack(single).sum())
    assert images.shape == (1, 3, SIZE, SIZE)


def test_gradients_and_information_add():
    coordinates = BandCoordinates(BOX, FRAMES)
    u = coordinates.project(coordinates_of(magnitude=20.0)[None])
    joint = observed(coordinates, u[0])
    rows = torch.zeros(1, dtype=torch.long)
    batches = JointBatches(joint)
    images, jacobian, _ = batches.differentiate(rows, u)
    found = batches.data(rows).respond(images, jacobian)
    parts = [band.linearize(0, u[0]) for band in joint.bands]
    gradient = torch.stack([p[1] for p in parts]).sum(0)
    information = torch.stack([p[2] for p in parts]).sum(0)
    scale = information.diagonal().sqrt()
    torch.testing.assert_close(found.gradient[0] / scale, gradient / scale, atol=2e-2, rtol=0)
    torch.testing.assert_close(
        found.information[0] / scale / scale[:, None],
        information / scale / scale[:, None],
        atol=1e-2,
        rtol=0,
    )


def test_two_equal_bands_are_as_good_as_half_the_variance():
    w = coordinates_of(magnitude=20.0, radius=1.0)
    coordinates = BandCoordinates(BOX, [BandFrame()] * 2)
    joint = observed(coordinates, coordinates.project(w[None])[0])
    rows = torch.zeros(1, dtype=torch.long)
    both = fit(joint, rows, coordinates.project(w[None]))
    alone = joint.bands[0].under(SersicCoordinates(BOX))
    one = fit(alone, rows, w[None])
    assert bool(both.converged.all())
    assert bool(one.converged.all())
    ratio = (one.covariance[0].diagonal()[1:] / both.covariance[0].diagonal()[1:7]).sqrt()
    torch.testing.assert_close(ratio, torch.full_like(ratio, math.sqrt(2.0)), atol=0.25, rtol=0)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_the_truth_is_found_whatever_the_frames(structure):
    coordinates = BandCoordinates(BOX, FRAMES, structure, WAVES)
    truth = coordinates.project(coordinates_of(magnitude=19.5, radius=0.8)[None])
    joint = observed(coordinates, truth[0], seed=3)
    found = fit(joint, torch.zeros(1, dtype=torch.long), truth + 0.1)
    assert bool(found.converged.all())
    pull = (found.u - truth)[0] / found.covariance[0].diagonal().sqrt()
    assert float(pull.abs().max()) < 4.0


def test_a_background_noisier_than_its_map_counts_in_its_band():
    """The noise's own widths follow what the background of each band scatters by."""
    w = coordinates_of(magnitude=20.0, radius=0.6)
    coordinates = BandCoordinates(BOX, [BandFrame()] * 2)
    u = coordinates.project(w[None])[0]
    quiet, noisy = observed(coordinates, u), observed(coordinates, u)
    generator = torch.Generator().manual_seed(5)
    for band in noisy.bands:
        more = torch.randn(band.stamps.image.shape, generator=generator, dtype=torch.float64)
        band.stamps.image.add_(2.0 * more)
    covariance = fit(quiet, torch.zeros(1, dtype=torch.long), u[None]).covariance[0]
    widths = [
        joint_sandwich_at(joint, u, covariance).noise_covariance[0].diagonal().sqrt()
        for joint in (quiet, noisy)
    ]
    assert 1.6 < float((widths[1] / widths[0]).median()) < 2.8  # of 5 ** 0.5


def test_every_band_has_one_stamp():
    coordinates = BandCoordinates(BOX, FRAMES)
    with pytest.raises(ShapeError, match="3 bands need a likelihood of one stamp each"):
        JointLikelihood([empty_likelihood(1, math.inf, 0.02)] * 2, coordinates)
