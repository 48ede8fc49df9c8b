from __future__ import annotations

import numpy as np
import pytest
from astropy import units as u
from astropy.io import fits
from astropy.nddata import NDData, StdDevUncertainty

from deeplegato_pp.catalog.cutouts import open_images
from deeplegato_pp.catalog.inputs import Inputs
from deeplegato_pp.catalog.neighbours import neighbours_of
from deeplegato_pp.catalog.positions import checked_positions, find_positions
from deeplegato_pp.catalog.sources import from_columns
from deeplegato_pp.errors import InputError
from deeplegato_pp.flags import Flag
from deeplegato_pp.observation import inputs
from small_sky import POSITIONS, SIDE, make_sky, make_wcs

SKY = make_sky()
LIST = from_columns({"id": np.arange(6), "x": POSITIONS[:, 0], "y": POSITIONS[:, 1]}, "here")


def scene(**options):
    given = {"images": (SKY.image,), "psf": (SKY.psf,), "noise": (1.0,), "wcs": SKY.wcs}
    return open_images(Inputs(**given | options))


def cutouts(opened, sources, side=64):
    places = find_positions(opened.mosaics, sources)
    return [opened.cutout(sources, i, place, side) for i, place in enumerate(places)]


def test_a_cutout_is_the_mosaic_around_the_source():
    for i, cutout in enumerate(cutouts(scene(), LIST)[:5]):
        observation = cutout.observation
        assert observation.shape == (64, 64)
        x, y = POSITIONS[i] - [cutout.left, cutout.bottom]
        assert abs(x - 31.5) <= 0.5
        assert abs(y - 31.5) <= 0.5
        expected = SKY.image[cutout.bottom : cutout.bottom + 64, cutout.left : cutout.left + 64]
        np.testing.assert_array_equal(observation.image, expected)
        assert not observation.mask.any()
        assert observation.pixel_scale == pytest.approx(0.25)
        assert observation.flags == Flag.NO_ZERO_POINT
        corner = observation.wcs.celestial.all_pix2world(np.array([[0.0, 0.0]]), 0)
        np.testing.assert_allclose(corner, SKY.wcs.all_pix2world([[cutout.left, cutout.bottom]], 0))


def test_beyond_the_edge_pixels_are_masked_and_the_row_flagged():
    cutout = cutouts(scene(), LIST)[5]
    assert cutout.left == -20
    assert cutout.observation.mask[:, :20].all()
    assert not cutout.observation.mask[:, 20:].any()
    assert cutout.observation.flags & Flag.IMAGE_EDGE


def test_pixels_that_count_from_one_are_brought_to_zero(caplog):
    ra, dec = SKY.wcs.all_pix2world(POSITIONS[:, 0], POSITIONS[:, 1], 0)
    mosaics = scene().mosaics

    def checked(shift):
        columns = {"x": POSITIONS[:, 0] + shift, "y": POSITIONS[:, 1] + shift, "ra": ra, "dec": dec}
        return checked_positions(mosaics, from_columns(columns, "here")).x - POSITIONS[:, 0]

    assert checked(0.0) == pytest.approx(np.zeros(6))
    assert not caplog.records
    assert checked(1.0) == pytest.approx(np.zeros(6))
    assert "count from 1" in caplog.text
    assert checked(3.0) == pytest.approx(np.full(6, 3.0))
    assert "4.2 px apart" in caplog.text


def test_what_the_file_says_reaches_each_cutout(tmp_path):
    header = SKY.wcs.to_header()
    header["MAGZERO"], header["PIXSCALE"], header["BUNIT"] = 25.0, 0.1, "uJy"
    mask = np.full(SKY.image.shape, 32, np.int32)
    mask[80, 70] = 1
    planes = fits.Header()
    planes["HIERARCH MP_BAD"], planes["HIERARCH MP_DETECTED"] = 0, 5
    hdus = [fits.PrimaryHDU(), fits.ImageHDU(SKY.image, header, name="SCI")]
    hdus += [fits.ImageHDU(SKY.image * 0 + 1e-3, fits.Header({"BUNIT": "mJy"}), name="ERR")]
    hdus += [fits.ImageHDU(mask, planes, name="MASK")]
    fits.HDUList(hdus).writeto(tmp_path / "a.fits")
    path = str(tmp_path / "a.fits")
    opened = open_images(Inputs(images=(path,), psf_fwhm=3.0))
    observation = cutouts(opened, LIST)[0].observation
    assert observation.zero_point == pytest.approx(23.9, abs=1e-3)
    assert observation.pixel_scale == pytest.approx(0.25)
    assert observation.median_noise == pytest.approx(1.0)
    assert int(observation.mask.sum()) == 1
    conflicts = Flag.ZERO_POINT_CONFLICT | Flag.PIXEL_SCALE_CONFLICT
    assert observation.flags & conflicts == conflicts
    told = open_images(Inputs(images=(path,), psf_fwhm=3.0, mask_bits=32, zero_point=(27.0,)))
    assert cutouts(told, LIST)[0].observation.flags & Flag.GALAXY_MASKED
    assert not told.mosaics[0].flags & Flag.ZERO_POINT_CONFLICT


def test_quantities_and_nddata_bring_their_units():
    noise = StdDevUncertainty(SKY.image * 0 + 1e-3, unit=u.mJy)
    data = NDData(SKY.image, unit=u.uJy, uncertainty=noise, wcs=SKY.wcs)
    for image, given in (
        (data, {}),
        (SKY.image * u.uJy, {"noise": ((SKY.image * 0 + 1e-3) * u.mJy,), "wcs": SKY.wcs}),
    ):
        opened = open_images(Inputs(images=(image,), psf_fwhm=3.0, **given))
        observation = cutouts(opened, LIST)[0].observation
        assert observation.median_noise == pytest.approx(1.0)
        assert observation.zero_point == pytest.approx(23.9, abs=1e-3)
        assert observation.pixel_scale == pytest.approx(0.25)


def test_sky_positions_find_the_same_pixels():
    ra, dec = SKY.wcs.all_pix2world(POSITIONS[:, 0], POSITIONS[:, 1], 0)
    listed = from_columns({"ra": ra, "dec": dec}, "here")
    places = find_positions(scene().mosaics, listed)
    np.testing.assert_allclose([(p.x, p.y) for p in places], POSITIONS, atol=1e-6)


def test_what_has_no_place_has_a_reason():
    columns = {"x": [np.nan, -40.0, 10.0, np.inf], "y": [5.0, 20.0, SIDE - 0.4, 5.0]}
    found = cutouts(scene(), from_columns(columns, "here"))
    assert "not finite" in found[0].reason
    assert "outside the image of 300 x 300" in found[1].reason
    assert "outside" in found[2].reason
    assert "not finite" in found[3].reason
    assert all(c.observation is None for c in found)


def test_a_wrong_wcs_and_none():
    far = make_wcs()
    far.wcs.crval = [10.0, -60.0]
    listed = from_columns({"ra": [150.0, np.nan, 150.0], "dec": [2.0, 2.0, 95.0]}, "here")
    reasons = [c.reason for c in cutouts(scene(wcs=far), listed)]
    assert "cannot be projected" in reasons[0] or "outside" in reasons[0]
    assert "not finite" in reasons[1]
    assert "no usable WCS" in cutouts(scene(wcs=None), listed)[0].reason


def test_of_several_images_the_one_it_lies_deepest_in(tmp_path):
    for name, shift in (("left.fits", 0), ("right.fits", 100)):
        header = SKY.wcs.to_header()
        header["CRPIX1"] -= shift
        fits.PrimaryHDU(SKY.image[:, shift:], header=header).writeto(tmp_path / name)
    paths = tuple(str(tmp_path / n) for n in ("left.fits", "right.fits"))
    ra, dec = SKY.wcs.all_pix2world([110.0, 290.0], [150.0, 150.0], 0)
    opened = open_images(Inputs(images=paths, noise=(1.0,)))
    places = find_positions(opened.mosaics, from_columns({"ra": ra, "dec": dec}, "here"))
    assert [p.image for p in places] == [0, 0]
    ra, dec = SKY.wcs.all_pix2world([240.0], [150.0], 0)
    opened = open_images(Inputs(images=paths[::-1], noise=(1.0,)))
    assert find_positions(opened.mosaics, from_columns({"ra": ra, "dec": dec}, "here"))[0].x == (
        pytest.approx(140.0)
    )


def test_noise_masks_and_background_are_cut_with_the_image():
    mask = np.zeros((SIDE, SIDE), dtype=np.uint8)
    mask[80, 70], mask[81, 70] = 1, 2
    noise = np.full((SIDE, SIDE), 4.0)
    level = np.full((SIDE, SIDE), 7.0)
    opened = scene(
        mask=(mask,), mask_bits=2, noise=(noise,), noise_type="variance", background=(level,)
    )
    cutout = cutouts(opened, LIST)[0]
    rows, columns = np.nonzero(cutout.observation.mask)
    assert (rows + cutout.bottom).tolist() == [81]
    assert (columns + cutout.left).tolist() == [70]
    assert cutout.observation.median_noise == 2.0
    expected = float(SKY.image[cutout.bottom, cutout.left]) - 7.0
    assert cutout.observation.image[0, 0] == pytest.approx(expected)


def test_one_psf_for_all_is_looked_at_once_and_before_any_work(monkeypatch):
    with pytest.raises(InputError, match="psf_even='shift'"):
        scene(psf=(SKY.psf[1:, 1:],))
    looked_at = []
    usable = inputs.usable_psf

    def counted(psf, *rest):
        if psf is not None:
            looked_at.append(psf)
        return usable(psf, *rest)

    monkeypatch.setattr(inputs, "usable_psf", counted)
    assert all(c.observation is not None for c in cutouts(scene(), LIST))
    assert len(looked_at) == 1


def test_a_source_may_bring_its_own_psf(tmp_path):
    fits.PrimaryHDU(SKY.psf[2:-2, 2:-2]).writeto(tmp_path / "own.fits")
    (tmp_path / "list.csv").write_text("x,y,psf\n70,80,own.fits\n70,80,\n70,80,gone.fits\n")
    from deeplegato_pp.catalog.sources import read_sources

    own, common, gone = cutouts(scene(), read_sources(tmp_path / "list.csv"))
    assert own.observation.psf.shape == (SKY.psf.shape[0] - 4,) * 2
    assert common.observation.psf.shape == SKY.psf.shape
    assert "gone.fits" in gone.reason


def test_a_psf_in_the_mosaics_own_file_is_found(tmp_path):
    hdus = [fits.PrimaryHDU(SKY.image), fits.ImageHDU(SKY.psf[2:-2, 2:-2], name="PSFIMAGE")]
    fits.HDUList(hdus).writeto(tmp_path / "image.fits")
    given = {"images": (str(tmp_path / "image.fits"),), "psf": ()}
    own = cutouts(scene(**given), LIST)[0].observation
    assert own.psf.shape == (SKY.psf.shape[0] - 4,) * 2
    other = cutouts(scene(**given, psf_fwhm=2.8), LIST)[0].observation
    assert other.flags & Flag.PSF_FROM_FWHM


def test_neighbours_are_masked_and_the_source_is_not():
    segments = np.zeros((40, 40), dtype=int)
    segments[18:23, 18:23] = 3
    segments[18:23, 24:28] = 5
    others = neighbours_of(segments, 20.0, 20.0, grow=2)
    assert not others[segments == 3].any()
    assert others[segments == 5].all()
    assert others[20, 29]
    assert others[20, 23]
    assert not others[20, 31]
    beside = neighbours_of(segments, 16.4, 20.0)  # just outside its own segment
    assert not beside[segments == 3].any()
    assert neighbours_of(segments, 5.0, 5.0)[segments > 0].all()


def test_companions_must_be_one_or_one_per_image():
    with pytest.raises(InputError, match="3 of mask for 2 images"):
        Inputs(images=("a", "b"), mask=("c", "d", "e"))
    with pytest.raises(InputError, match="psf and psf_fwhm"):
        Inputs(images=("a",), psf=("p",), psf_fwhm=3.0)
