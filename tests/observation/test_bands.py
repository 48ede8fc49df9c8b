"""Observations of several bands: names, files, and how the bands lie to each other."""

from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from deeplegato_pp import MultiBandObservation, Observation
from deeplegato_pp.errors import InputError
from deeplegato_pp.observation.bands import align, recentred


def wcs_of(scale: float, turn: float = 0.0, parity: int = -1, pixel=(10.0, 10.0)) -> WCS:
    """A tangential WCS about one point of the sky; north is up and east left if not turned."""
    header = fits.Header()
    header["CTYPE1"], header["CTYPE2"] = "RA---TAN", "DEC--TAN"
    header["CRVAL1"], header["CRVAL2"] = 150.0, 60.0
    header["CRPIX1"], header["CRPIX2"] = pixel[0] + 1.0, pixel[1] + 1.0
    c, s = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    matrix = np.array([[c, -s], [s, c]]) @ np.diag([parity, 1.0]) * scale / 3600.0
    for i in range(2):
        for k in range(2):
            header[f"CD{i + 1}_{k + 1}"] = matrix[i, k]
    return WCS(header)


def observation(wcs=None, scale: float = 0.2, shape=(21, 21)) -> Observation:
    image = np.random.default_rng(1).normal(size=shape)
    return Observation.from_array(
        image, np.ones((3, 3)), 1.0, pixel_scale=scale, zero_point=25.0, wcs=wcs, name="one"
    )


def test_a_turned_finer_and_mirrored_band():
    first = observation(wcs_of(0.2))
    same = align("g", first, "r", observation(wcs_of(0.2)))
    np.testing.assert_allclose(same.matrix, np.eye(2), atol=1e-6)
    np.testing.assert_allclose(same.offset, 0.0, atol=1e-6)
    finer = align("g", first, "r", observation(wcs_of(0.1), scale=0.1))
    np.testing.assert_allclose(finer.matrix, 2.0 * np.eye(2), atol=1e-5)
    mirrored = align("g", first, "r", observation(wcs_of(0.2, parity=1)))
    np.testing.assert_allclose(mirrored.matrix, np.diag([-1.0, 1.0]), atol=1e-5)
    turned = align("g", first, "r", observation(wcs_of(0.2, turn=90.0)))
    np.testing.assert_allclose(np.abs(turned.matrix), [[0, 1], [1, 0]], atol=1e-5)
    assert np.linalg.det(turned.matrix) == pytest.approx(1.0, abs=1e-4)


def test_parts_of_a_pixel_and_whole_ones():
    first = observation(wcs_of(0.2))
    near = align("g", first, "r", observation(wcs_of(0.2, pixel=(10.3, 9.6))))
    np.testing.assert_allclose(near.offset, [0.3, -0.4], atol=1e-6)
    assert near.observation.shape == (21, 21)
    far = align("g", first, "r", observation(wcs_of(0.2, pixel=(13.3, 6.0))))
    assert far.observation.shape == (29, 28)
    np.testing.assert_allclose(far.offset, [-0.2, 0.0], atol=1e-6)
    assert far.observation.mask.sum() == 29 * 28 - 21 * 21


def test_a_recentred_image_has_its_point_in_the_middle():
    image = np.zeros((21, 30))
    image[4, 25] = 100.0
    given = Observation.from_array(image, np.ones((3, 3)), 1.0, pixel_scale=0.2, zero_point=25.0)
    moved, offset = recentred(given, 25.0, 4.0)
    y, x = np.unravel_index(moved.image.argmax(), moved.shape)
    middle = (moved.shape[1] - 1) / 2, (moved.shape[0] - 1) / 2
    assert (x - middle[0], y - middle[1]) == (pytest.approx(offset[0]), pytest.approx(offset[1]))
    assert np.abs(offset).max() <= 0.5
    assert (~moved.mask).sum() == (~given.mask).sum()


def test_without_wcs_the_centres_are_one():
    found = align("g", observation(wcs_of(0.2)), "r", observation(scale=0.1))
    np.testing.assert_allclose(found.matrix, 2.0 * np.eye(2))
    assert not found.by_wcs
    bands = {"g": observation(wcs_of(0.2)), "r": observation(), "i": observation(wcs_of(0.2))}
    assert MultiBandObservation(bands).notes == [
        "without WCS, the centres of the stamps of g, r are assumed to coincide"
    ]


def test_a_scale_that_contradicts_the_wcs_is_noted():
    found = align("g", observation(wcs_of(0.2)), "r", observation(wcs_of(0.1), scale=0.2))
    assert "by the pixel scales 1" in found.notes[0]


def test_bands_that_do_not_overlap_are_refused():
    elsewhere = observation(wcs_of(0.2, pixel=(500.0, 10.0)))
    with pytest.raises(InputError, match="bands g and r do not overlap"):
        MultiBandObservation({"g": observation(wcs_of(0.2)), "r": elsewhere})


@pytest.mark.parametrize(
    ("bands", "message"),
    [
        (["g"], "at least two"),
        (["g", "g"], "have one name"),
        (["g", "G"], "do not tell case apart"),
        (["g", "r-i"], "'r-i' cannot name a band"),
        (["g", "std"], "'std' cannot name a band"),
        (["g", "x_q16"], "cannot name a band"),
        (["g", "814"], "cannot name a band"),
    ],
)
def test_names_that_make_no_columns(bands, message):
    with pytest.raises(InputError, match=message):
        MultiBandObservation.from_fits(["a.fits"] * len(bands), bands)


def test_files_of_several_bands(tmp_path):
    paths = []
    for name in ("g", "r"):
        path = tmp_path / f"{name}.fits"
        header = fits.Header({"PIXSCALE": 0.2})
        fits.PrimaryHDU(np.random.default_rng(2).normal(size=(21, 21)), header).writeto(path)
        paths.append(path)
    galaxy = MultiBandObservation.from_fits(
        paths, ["g", "r"], psf_fwhm=[3.0, 4.0], noise=1.0, zero_point=[25.0, 26.0]
    )
    assert galaxy.name == "g"
    assert [o.zero_point for o in galaxy.observations.values()] == [25.0, 26.0]
    fwhm = [o.psf_fwhm for o in galaxy.observations.values()]
    assert fwhm[1] > fwhm[0] + 0.5
    with pytest.raises(InputError, match=r"2 bands .* need one file each, got 1"):
        MultiBandObservation.from_fits(paths[:1], ["g", "r"])
    with pytest.raises(InputError, match="zero_point takes one value for each of the bands g, r"):
        MultiBandObservation.from_fits(paths, ["g", "r"], zero_point=[25.0, 26.0, 27.0])
    with pytest.raises(InputError, match=r"band r: .*missing"):
        MultiBandObservation.from_fits([paths[0], tmp_path / "missing.fits"], ["g", "r"])
    with pytest.raises(InputError, match="1 wavelengths for 2 bands"):
        MultiBandObservation(galaxy.observations, [0.5])
    with pytest.raises(InputError, match="band r must be an Observation, got a ndarray"):
        MultiBandObservation({"g": galaxy.first, "r": np.zeros((3, 3))})
