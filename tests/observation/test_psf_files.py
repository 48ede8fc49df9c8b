import numpy as np
import pytest
from astropy.io import fits

from deeplegato_pp.errors import FormatError
from deeplegato_pp.flags import Flag
from deeplegato_pp.io.header_keywords import Cards
from deeplegato_pp.observation.effective_psf import moffat_psf, psf_centroid, psf_fwhm
from deeplegato_pp.observation.psf_files import (
    open_psf_file,
    psf_image,
    psf_of_stamp,
    resampled,
    stamp_origin,
)

SCALE = 0.063


def moffat(size: int, fwhm: float, middle: float | None = None) -> np.ndarray:
    """A Moffat on a square grid about its middle, or about another sample."""
    axis = np.arange(size) - ((size - 1) / 2 if middle is None else middle)
    alpha = fwhm / (2 * np.sqrt(2 ** (1 / 4.765) - 1))
    psf = (1 + (axis[:, None] ** 2 + axis[None] ** 2) / alpha**2) ** -4.765
    return psf / psf.sum()


def hdu(kind, data, name, oversampling, scale):
    made = kind(data)
    made.header["EXTNAME"], made.header["OVERSAMP"] = name, oversampling
    made.header["PIXELSCL"], made.header["DET_SAMP"] = scale, oversampling
    return made


@pytest.fixture
def stpsf(tmp_path):
    """STPSF's four extensions, four samples per pixel, even-sized."""
    fine = moffat(48, 12.0)
    native = fine.reshape(12, 4, 12, 4).sum((1, 3))[:11, :11]
    fits.HDUList(
        [
            hdu(fits.PrimaryHDU, fine, "OVERSAMP", 4, SCALE / 4),
            hdu(fits.ImageHDU, native, "DET_SAMP", 1, SCALE),
            hdu(fits.ImageHDU, fine, "OVERDIST", 4, SCALE / 4),
            hdu(fits.ImageHDU, native, "DET_DIST", 1, SCALE),
        ]
    ).writeto(tmp_path / "stpsf.fits")
    return tmp_path / "stpsf.fits"


def test_stpsf_by_names_and_header(stpsf):
    psf = open_psf_file(stpsf, SCALE)(0, 0)
    assert (psf.source, psf.oversampling, psf.includes_pixel) == ("OVERDIST", 4, False)
    assert psf.flags == Flag.PSF_SHIFTED
    assert psf.image.shape == (49, 49)
    assert max(map(abs, psf_centroid(psf.image))) < 0.01
    assert psf_fwhm(psf.image, 4) == pytest.approx(3.0, rel=0.01)
    native = open_psf_file(stpsf, SCALE, oversampling=1)(0, 0)
    assert (native.source, native.oversampling, native.includes_pixel) == ("DET_DIST", 1, True)


def test_stpsf_of_another_pixel_scale_is_resampled_and_flagged(stpsf):
    psf = open_psf_file(stpsf, 0.04)(0, 0)  # 2.54 samples of STPSF per pixel of the mosaic
    assert psf.flags & Flag.PSF_SAMPLING_CONFLICT
    assert psf.oversampling == 3
    arcsec = psf_fwhm(psf.image, 3) * 0.04
    assert arcsec == pytest.approx(3.0 * SCALE, rel=0.02)


@pytest.mark.parametrize(
    ("header", "scale", "samples", "flags"),
    [
        ({}, 0.06, None, 0),
        ({"OVERSAMP": 3}, None, 3, 0),
        ({"OVERSAMP": 3, "PIXELSCL": 0.02}, 0.06, 3, 0),
        ({"PIXELSCL": 0.02}, 0.06, 3, 0),
        ({"PIXELSCL": 0.06}, 0.06, 1, 0),
        ({"OVERSAMP": 3, "PIXELSCL": 0.06}, 0.06, 1, Flag.PSF_SAMPLING_CONFLICT),
        ({"PIXELSCL": 0.025}, 0.06, 2, Flag.PSF_SAMPLING_CONFLICT),
        ({"PIXELSCL": 0.2}, 0.06, None, Flag.PSF_SAMPLING_CONFLICT),
    ],
)
def test_sampling_by_header_and_scale(header, scale, samples, flags):
    psf = psf_image(moffat(31, 6.0), Cards(header), "", scale)
    assert (psf.oversampling, psf.flags) == (samples, flags)
    told = psf_image(moffat(31, 6.0), Cards(header), "", scale, oversampling=5)
    assert (told.oversampling, told.flags) == (5, 0)
    assert np.array_equal(told.image, moffat(31, 6.0))


def psfex(path, planes, zero=51.0, extent=50.0):
    """A PSFEx model of first order, two samples per pixel."""
    size = planes.shape[1]
    column = fits.Column(
        "PSF_MASK",
        f"{planes.size}E",
        dim=f"({size},{size},{len(planes)})",
        array=planes[None].astype("f4"),
    )
    table = fits.BinTableHDU.from_columns([column], name="PSF_DATA")
    table.header.update({"POLNAXIS": 2, "POLNGRP": 1, "POLDEG1": 1, "PSF_SAMP": 0.5})
    for i, name in enumerate(("X_IMAGE", "Y_IMAGE"), 1):
        table.header[f"POLNAME{i}"] = name
        table.header[f"POLZERO{i}"], table.header[f"POLSCAL{i}"] = zero, extent
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(path)
    return path


@pytest.mark.parametrize(("size", "middle"), [(49, 24), (48, 24)])
def test_psfex_with_its_own_centre(tmp_path, size, middle):
    fine = moffat(size, 6.0, middle)
    model = open_psf_file(psfex(tmp_path / "a.psf", np.stack([fine, fine * 0, fine * 0])))
    psf = psf_of_stamp(model, (101, 101), None)
    assert (psf.oversampling, psf.includes_pixel, psf.flags) == (2, True, 0)
    assert psf.image.shape[0] % 2 == 1
    assert max(map(abs, psf_centroid(psf.image))) < 1e-3
    assert psf_fwhm(psf.image, 2) == pytest.approx(3.0, rel=0.01)


def test_a_varying_model_needs_to_know_where_the_stamp_lies(tmp_path):
    fine = moffat(49, 6.0)
    planes = np.stack([fine, 0.5 * fine, 0 * fine])  # its sum tells the place
    model = open_psf_file(psfex(tmp_path / "a.psf", planes, zero=1001.0, extent=1000.0))
    unknown = psf_of_stamp(model, (101, 101), None)
    assert unknown.flags == Flag.PSF_ELSEWHERE
    assert unknown.image.sum() == pytest.approx(1.0, rel=1e-3)
    origin = stamp_origin({"LTV1": -1450.0, "LTV2": -300.0})
    known = psf_of_stamp(model, (101, 101), origin)
    assert known.flags == 0
    assert known.image.sum() == pytest.approx(1.25, rel=1e-3)
    whole = psf_of_stamp(model, (2000, 2000), None)
    assert whole.flags == 0


def test_cubes_and_tables(tmp_path):
    narrow, wide = moffat(21, 2.5), moffat(21, 5.0)
    places = [fits.Column("x", "D", array=[10.0, 90.0]), fits.Column("y", "D", array=[50.0, 50.0])]
    cube = fits.ImageHDU(np.stack([narrow, wide]))
    at = fits.BinTableHDU.from_columns(places)
    fits.HDUList([fits.PrimaryHDU(), cube, at]).writeto(tmp_path / "cube.fits")
    column = fits.Column("psf", "441D", dim="(21,21)", array=np.stack([narrow, wide]))
    table = fits.BinTableHDU.from_columns([*places, column])
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(tmp_path / "table.fits")
    for name in ("cube.fits", "table.fits"):
        psf_map = open_psf_file(tmp_path / name)
        assert psf_fwhm(psf_map(10, 50).image) == pytest.approx(psf_fwhm(narrow), rel=1e-3)
        assert psf_of_stamp(psf_map, (101, 101), None).flags == 0
        assert psf_of_stamp(psf_map, (21, 21), None).flags == Flag.PSF_ELSEWHERE
    fits.PrimaryHDU(np.stack([narrow, wide])).writeto(tmp_path / "bare.fits")
    with pytest.raises(FormatError, match="needs a table"):
        open_psf_file(tmp_path / "bare.fits")
    fits.PrimaryHDU(narrow[None]).writeto(tmp_path / "one.fits")
    assert open_psf_file(tmp_path / "one.fits")(0, 0).image.shape == (21, 21)
    fits.BinTableHDU.from_columns(places).writeto(tmp_path / "list.fits")
    with pytest.raises(FormatError, match="no PSF in the file"):
        open_psf_file(tmp_path / "list.fits")


def test_resampling_keeps_the_width():
    psf, _ = moffat_psf(6.0)
    assert resampled(psf, 1.0) is psf
    assert psf_fwhm(resampled(psf, 1.5)) == pytest.approx(4.0, rel=0.01)
