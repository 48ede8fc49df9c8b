import bz2
import gzip
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import CCDData, InverseVariance, StdDevUncertainty, VarianceUncertainty

from deeplegato_pp.errors import FormatError, InputError, RangeError, ShapeError
from deeplegato_pp.io.fits import read_array, read_image

RNG = np.random.default_rng(0)
IMAGE = RNG.normal(size=(20, 24))
PSF = np.outer([1, 2, 1], [1, 2, 1]) / 16


def write(path, *hdus):
    """Writes (name, data, keywords) triples, the first one as the primary."""
    first, *rest = hdus
    primary = fits.PrimaryHDU(first[1], fits.Header(first[2]))
    extensions = [fits.ImageHDU(data, fits.Header(head), name=name) for name, data, head in rest]
    fits.HDUList([primary, *extensions]).writeto(path)
    return path


@pytest.mark.parametrize(
    ("uncertainty", "noise_type"),
    [(StdDevUncertainty, "sigma"), (VarianceUncertainty, "variance"), (InverseVariance, "ivar")],
)
def test_ccddata(tmp_path, uncertainty, noise_type):
    mask = IMAGE > 2
    ccd = CCDData(IMAGE, unit="adu", mask=mask, uncertainty=uncertainty(IMAGE**2), psf=PSF)
    ccd.meta["PIXSCALE"] = 0.2
    ccd.write(tmp_path / "ccd.fits")
    found = read_image(tmp_path / "ccd.fits")
    assert np.array_equal(found.image, IMAGE)
    assert np.array_equal(found.noise.pixels, IMAGE**2)
    assert found.noise.statement == noise_type
    assert np.array_equal(found.mask.pixels, mask)
    assert np.array_equal(found.psf.pixels, PSF)
    assert found.header["PIXSCALE"] == 0.2
    assert found.header["BUNIT"] == "adu"
    assert found.image.dtype.isnative


def test_sci_err_dq_wht_and_the_primary_header(tmp_path):
    weight = np.ones_like(IMAGE)
    weight[0, 0] = 0
    path = write(
        tmp_path / "jwst.fits",
        ("", None, {"TELESCOP": "JWST"}),
        ("SCI", IMAGE, {"BUNIT": "MJy/sr"}),
        ("ERR", np.abs(IMAGE), {}),
        ("DQ", np.full(IMAGE.shape, 4, dtype=np.uint32), {}),
        ("WHT", weight, {}),
    )
    found = read_image(path)
    assert found.header["TELESCOP"] == "JWST"
    assert found.header["BUNIT"] == "MJy/sr"
    assert (found.noise.name, found.mask.name) == ("ERR", "DQ")
    assert found.mask.pixels.max() == 4
    assert found.mask.pixels.dtype == np.uint32
    assert np.argwhere(found.no_data).tolist() == [[0, 0]]


def test_weight_is_the_noise_where_there_is_no_better(tmp_path):
    path = write(tmp_path / "drz.fits", ("", None, {}), ("SCI", IMAGE, {}), ("WHT", IMAGE**2, {}))
    found = read_image(path)
    assert found.noise.name == "WHT"
    assert found.no_data is None


def test_companions_have_the_version_of_the_image(tmp_path):
    planes = []
    for version in (1, 2):
        planes += [
            ("SCI", IMAGE + version, {"EXTVER": version}),
            ("ERR", np.full(IMAGE.shape, float(version)), {"EXTVER": version}),
        ]
    path = write(tmp_path / "flt.fits", ("", None, {}), *planes)
    assert read_image(path).noise.pixels[0, 0] == 1
    second = read_image(path, ("SCI", 2))
    assert np.array_equal(second.image, IMAGE + 2)
    assert second.noise.pixels[0, 0] == 2


def test_unknown_extension_lists_those_there_are(tmp_path):
    path = write(tmp_path / "a.fits", ("", IMAGE, {}), ("ERR", IMAGE, {}))
    with pytest.raises(FormatError, match=r"no extension 'SCI'.*1:ERR"):
        read_image(path, "SCI")
    assert read_image(path, "ERR").noise is None
    assert read_image(path, 0).noise is not None


def test_plain_and_compressed(tmp_path):
    plain = write(tmp_path / "a.fits", ("", IMAGE.astype(">f4"), {}))
    with gzip.open(tmp_path / "a.fits.gz", "wb") as file:
        file.write(plain.read_bytes())
    (tmp_path / "a.fits.bz2").write_bytes(bz2.compress(plain.read_bytes()))
    tiled = fits.CompImageHDU(IMAGE.astype(np.float32), compression_type="GZIP_2", quantize_level=0)
    fits.HDUList([fits.PrimaryHDU(), tiled]).writeto(tmp_path / "a.fits.fz")
    for name in ("a.fits", "a.fits.gz", "a.fits.bz2", "a.fits.fz"):
        found = read_image(tmp_path / name)
        assert found.image == pytest.approx(IMAGE, abs=1e-6), name
        assert found.image.dtype == np.float64
        assert found.noise is found.mask is found.psf is found.sky.wcs is None


def test_scaled_integers(tmp_path):
    path = write(tmp_path / "a.fits", ("", np.arange(400, dtype=np.uint16).reshape(20, 20), {}))
    assert read_image(path).image.max() == 399


def test_wcs(tmp_path):
    header = {"CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRVAL1": 10.0, "CRVAL2": -5.0}
    header |= {"CRPIX1": 12.5, "CRPIX2": 10.5, "CDELT1": -0.2 / 3600, "CDELT2": 0.2 / 3600}
    found = read_image(write(tmp_path / "a.fits", ("", IMAGE, header)))
    assert found.sky.scale == pytest.approx(0.2)
    assert found.sky.wcs.pixel_to_world(11.5, 9.5).ra.deg == pytest.approx(10)
    assert found.notes == []

    oblong = header | {"CDELT1": -0.4 / 3600}
    assert "not square" in read_image(write(tmp_path / "b.fits", ("", IMAGE, oblong))).sky.notes[0]
    broken = header | {"CTYPE1": "RA---XXX"}
    found = read_image(write(tmp_path / "c.fits", ("", IMAGE, broken)))
    assert found.sky.wcs is None
    assert "WCS ignored" in found.sky.notes[0]
    linear = {"CTYPE1": "LINEAR", "CTYPE2": "LINEAR"}
    assert read_image(write(tmp_path / "d.fits", ("", IMAGE, linear))).sky.wcs is None


def test_companions_from_files_of_their_own(tmp_path):
    path = write(tmp_path / "psf.fits", ("", IMAGE, {}), ("PSFIMAGE", PSF, {}))
    assert np.array_equal(read_array(path, ("PSFIMAGE",), "the PSF"), PSF)
    assert np.array_equal(read_array(path, ("PSF",), "the PSF"), IMAGE)


@pytest.fixture
def damaged(tmp_path):
    """Files that are no usable FITS image, by what is wrong with them."""
    good = write(tmp_path / "good.fits", ("", np.ones((200, 200)), {}), ("ERR", IMAGE, {}))
    content = good.read_bytes()
    cases = {
        "text": b"not a FITS file\n" * 300,
        "empty": b"",
        "short pixels": content[:100_000],
        "short header": content[:1500],
        "short extension": content[:-5760] + content[-5760:-4000],
        "no image": None,
        "short gz": gzip.compress(content)[:-500],
    }
    folder = tmp_path / "damaged"
    folder.mkdir()
    for name, data in cases.items():
        path = folder / f"{name}.fits{'.gz' if name.endswith('gz') else ''}"
        if data is None:
            fits.PrimaryHDU().writeto(path)
        else:
            path.write_bytes(data)
    return folder


def test_what_is_no_fits_image_is_one_plain_line(damaged):
    paths = [*damaged.iterdir(), damaged / "absent.fits", damaged]
    assert len(paths) == 9
    for path in paths:
        with pytest.raises(FormatError) as error:
            pytest.fail(f"{path.name} was read: {read_image(path)}")
        assert "\n" not in str(error.value)
        assert str(error.value).startswith(str(path))


def test_missing_padding_at_the_end_is_harmless(tmp_path):
    path = write(tmp_path / "a.fits", ("", IMAGE, {}))
    path.write_bytes(path.read_bytes()[:-1000])
    assert np.array_equal(read_image(path).image, IMAGE)


def test_cubes_ask_for_a_plane(tmp_path):
    cube = np.stack([np.ones((8, 8)), np.full((8, 8), 2.0)])
    path = write(tmp_path / "cube.fits", ("", cube, {}))
    with pytest.raises(ShapeError, match=r"must be 2-D.*got a cube of 2 planes.*--plane N"):
        read_image(path)
    assert read_image(path, plane=1).image.tolist() == cube[1].tolist()
    with pytest.raises(RangeError, match="planes 0 to 1, got plane 2"):
        read_image(path, plane=2)


def test_axes_of_length_one_are_dropped(tmp_path):
    path = write(tmp_path / "radio.fits", ("", IMAGE[None, None], {}))
    assert np.array_equal(read_image(path).image, IMAGE)


def test_asinh_magnitudes_are_made_linear_and_magnitudes_refused(tmp_path):
    flux = np.linspace(-3, 500, 64).reshape(8, 8)
    stored = 2.5 / np.log(10) * np.arcsinh((flux - 1.0) / (2 * 4.0))
    cards = {"BSOFTEN": 4.0, "BOFFSET": 1.0, "BUNIT": "mag"}
    found = read_image(write(tmp_path / "ps1.fits", ("", stored, cards)))
    assert found.image == pytest.approx(flux, abs=1e-9)
    assert "linear" in found.notes[0]
    with pytest.raises(InputError, match="expected fluxes"):
        read_image(write(tmp_path / "mag.fits", ("", IMAGE, {"BUNIT": "mag/arcsec2"})))


def test_masks_keep_all_their_bits(tmp_path):
    quality = np.full(IMAGE.shape, (1 << 60) + 1, dtype=np.int64)
    unsigned = np.full(IMAGE.shape, (1 << 63) + 1, dtype=np.uint64)
    for name, array in (("signed", quality), ("unsigned", unsigned)):
        path = write(tmp_path / f"{name}.fits", ("", IMAGE, {}), ("DQ", array, {}))
        assert np.array_equal(read_image(path).mask.pixels, array)


def test_unknown_uncertainty_is_refused(tmp_path):
    path = write(tmp_path / "a.fits", ("", IMAGE, {}), ("UNCERT", IMAGE, {"UTYPE": "Guess"}))
    with pytest.raises(FormatError, match="got 'Guess'"):
        read_image(path)


def test_nothing_stays_open(tmp_path):
    path = write(tmp_path / "a.fits", ("", IMAGE, {}))
    found = read_image(path)
    Path(path).unlink()
    found.image[:] = 1
