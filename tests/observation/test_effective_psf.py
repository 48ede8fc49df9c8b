import numpy as np
import pytest
import torch

from deeplegato_pp.errors import RangeError
from deeplegato_pp.observation.effective_psf import (
    FINE_ENOUGH,
    LOST,
    MOST_SAMPLES,
    bin_psf,
    missing_light,
    moffat_psf,
    negative_fraction,
    odd_psf,
    psf_centroid,
    psf_fwhm,
    thinned_psf,
    wings,
)
from deeplegato_pp.scene.render.renderer import render_sersic


def gaussian(shape, fwhm, x=0.0, y=0.0):
    """A Gaussian at (x, y) from the centre of the array."""
    rows, columns = np.indices(shape, dtype=float)
    radius2 = (columns - (shape[1] - 1) / 2 - x) ** 2 + (rows - (shape[0] - 1) / 2 - y) ** 2
    psf = np.exp(-4 * np.log(2) * radius2 / fwhm**2)
    return psf / psf.sum()


@pytest.mark.parametrize("fwhm", [3.0, 4.2, 7.0])
@pytest.mark.parametrize("shift", [(0.0, 0.0), (0.4, -0.3)])
def test_fwhm_does_not_depend_on_the_subpixel_position(fwhm, shift):
    psf = gaussian((41, 51), fwhm, *shift)
    assert psf_fwhm(psf) == pytest.approx(fwhm, rel=0.006)
    assert psf_fwhm(psf, oversampling=4) == pytest.approx(fwhm / 4, rel=0.006)


def test_fwhm_of_an_ellipse_is_the_geometric_mean():
    rows, columns = np.indices((61, 61)) - 30.0
    psf = np.exp(-4 * np.log(2) * (columns**2 / 36 + rows**2 / 16))
    assert psf_fwhm(psf) == pytest.approx(np.sqrt(24), rel=0.005)


def test_centroid_ignores_a_far_companion():
    psf = gaussian((41, 35), 3.5, 0.31, -0.22) + 0.2 * gaussian((41, 35), 3.5, 13, 12)
    assert psf_centroid(psf) == pytest.approx((0.31, -0.22), abs=0.005)


@pytest.mark.parametrize(
    ("shape", "x", "y"),
    [
        ((24, 24), 0.0, 0.0),  # midway: half a sample by Fourier
        ((24, 24), 0.5, 0.5),  # on pixel N/2
        ((24, 24), -0.5, 0.5),  # on N/2 - 1 along x
        ((25, 24), 0.0, 0.0),  # one even axis
    ],
)
def test_even_psfs_are_centred_on_an_odd_grid(shape, x, y):
    psf = odd_psf(gaussian(shape, 4.0, x, y))
    expected = tuple(size + 1 - size % 2 for size in shape)
    assert psf.shape == expected
    assert psf.sum() == pytest.approx(1, abs=1e-12)
    # What a Gaussian of FWHM 4 px has beyond the Nyquist frequency is below 1e-7 of it.
    assert np.abs(psf - gaussian(expected, 4.0)).max() < 1e-7


@pytest.mark.parametrize(("oversampling", "factor"), [(1, 2), (1, 3), (2, 2), (3, 2), (2, 3)])
def test_binned_psf_is_the_sum_over_native_pixels(oversampling, factor):
    fwhm = 4.0 * oversampling
    psf = bin_psf(gaussian((97, 99), fwhm), oversampling, factor)
    offsets = (np.arange(factor) - (factor - 1) / 2) * oversampling
    expected = sum(gaussian(psf.shape, fwhm, dx, dy) for dx in offsets for dy in offsets)
    assert psf.shape[0] % 2 == 1
    assert np.abs(psf - expected / factor**2).max() < 1e-7
    assert psf_centroid(psf) == pytest.approx((0, 0), abs=1e-9)


def test_binning_by_one_changes_nothing():
    psf = gaussian((11, 13), 3.0)
    assert np.array_equal(bin_psf(psf, 2, 1), psf)


@pytest.mark.parametrize("shape", [(401, 399), (353, 385)])
def test_a_psf_keeps_the_samples_that_show_it(shape):
    psf, samples = thinned_psf(gaussian(shape, 96.0), 32)
    assert samples == FINE_ENOUGH
    assert psf.shape[0] % 2 == psf.shape[1] % 2 == 1
    expected = gaussian(psf.shape, 12.0)
    assert psf == pytest.approx(expected, abs=LOST * expected.max())
    assert psf.sum() == pytest.approx(1.0, abs=1e-12)


def test_images_under_a_thinned_psf_are_the_same():
    fine = gaussian((65, 65), 14.0)
    galaxy = torch.tensor([1.0, 2.0, 4.0, 0.5, 30.0, 0.3, -0.2], dtype=torch.float64)[:, None]
    image, other = (
        render_sersic(*galaxy, torch.from_numpy(psf), 24, oversampling=samples)
        for psf, samples in ((fine, 10), thinned_psf(fine, 10))
    )
    assert thinned_psf(fine, 10)[1] < 10
    assert other.numpy() == pytest.approx(image.numpy(), abs=LOST * float(image.max()))


def test_no_psf_has_more_samples_than_can_be_rendered():
    point = np.zeros((5, 5))
    point[2, 2] = 1.0
    assert thinned_psf(point, 32)[1] == MOST_SAMPLES
    assert thinned_psf(point, FINE_ENOUGH)[0] is point


@pytest.mark.parametrize(("fwhm", "oversampling"), [(1.2, 3), (2.0, 2), (3.0, 1), (6.5, 1)])
def test_moffat_has_the_fwhm_asked_for(fwhm, oversampling):
    psf, samples = moffat_psf(fwhm)
    assert samples == oversampling
    assert psf.shape[0] == psf.shape[1]
    assert psf.shape[0] % 2 == 1
    assert psf.sum() == pytest.approx(1, abs=1e-12)
    assert psf_fwhm(psf, samples) == pytest.approx(fwhm, rel=0.03)
    assert missing_light(psf) < 1e-4


def test_a_psf_that_ends_within_its_array_misses_no_light():
    assert missing_light(bin_psf(moffat_psf(3.0)[0], 1, 30)) < 1e-6


@pytest.mark.parametrize("oversampling", [1, 3])
def test_wings_go_on_where_the_array_ends(oversampling):
    """Those of a Moffat on an array of 15 px, against the Moffat itself."""
    axis = np.arange(301) - 150
    radius2 = (axis[:, None] ** 2 + axis**2) / 1.6**2  # in core radii, on the pixels' grid
    beta, ratio = 2.2, 2 ** (1 / 2.2) - 1
    light = (1 + ratio * radius2) ** -beta * (beta - 1) * ratio / (np.pi * 1.6**2)
    fine = (np.arange(15 * oversampling) - (15 * oversampling - 1) / 2) / oversampling
    inner = (1 + ratio * (fine[:, None] ** 2 + fine**2) / 1.6**2) ** -beta
    found = wings(inner / inner.sum())
    assert found is not None
    halo = found.image(301, oversampling)
    beyond = np.maximum(np.abs(axis[:, None]), np.abs(axis)) > 8
    assert (halo[150 - 7 : 150 + 8, 150 - 7 : 150 + 8] == 0).all()
    near = beyond & (radius2 < (40 / 1.6) ** 2)
    assert halo[near].sum() == pytest.approx(light[near].sum(), rel=0.15)
    assert found.fraction == pytest.approx(1.0 - light[~beyond].sum(), rel=0.3)
    assert missing_light(inner) == pytest.approx(found.fraction)


def test_a_psf_without_light_at_its_edge_has_no_wings():
    psf = np.zeros((15, 15))
    psf[5:10, 5:10] = gaussian((5, 5), 2.0)
    assert wings(psf) is None
    assert missing_light(psf) == 0.0


def test_moffat_needs_a_positive_fwhm():
    with pytest.raises(RangeError, match="psf_fwhm must be positive"):
        moffat_psf(0)


def test_negative_samples_are_counted():
    psf = np.zeros((5, 5))
    psf[2, 2], psf[0, 0], psf[2, 3] = 1.0, 0.5, -0.5
    assert negative_fraction(psf) == pytest.approx(0.5)
