from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from deeplegato_pp.errors import DeepLegatoError, FormatError, InputError
from deeplegato_pp.flags import Flag
from deeplegato_pp.observation.galfit import FREE_SKY, read_galfit
from deeplegato_pp.observation.galfit_components import SCALE_LENGTH

CONTROLS = """
A) gal.fits
C) sigma.fits
D) psf.fits
E) 1
F) none
G) none
H) 5  34  3  26
I) 20 20
J) 25.0
K) 0.2 0.2
"""

SERSIC = """
0) sersic
1) 15.0 11.0 1 1
3) 20.0 1
4) 3.0  1
5) 2.5  1
9) 0.7  1
10) -30 1
"""

SKY = """
0) sky
1) 7.0  1
2) 0.1  0
3) 0.0  0
"""


PSF = """
0) psf
1) 15.0 11.0 1 1
3) 21.0 0
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with an image of 40 x 30 px whose pixels hold 1000 row + column."""
    rows, columns = np.indices((30, 40))
    header = WCS(naxis=2)
    header.wcs.ctype = "RA---TAN", "DEC--TAN"
    header.wcs.crval, header.wcs.crpix, header.wcs.cdelt = (150, 2), (20, 15), (-5e-5, 5e-5)
    cards = header.to_header()
    cards["EXPTIME"] = 100.0
    fits.writeto(tmp_path / "gal.fits", (1000.0 * rows + columns).astype("f8"), cards)
    fits.writeto(tmp_path / "sigma.fits", 1.0 + 0.001 * columns)
    psf = np.zeros((6, 7))
    psf[2:5, 2:5] = 1.0
    psf[3, 3] = 4.0
    fits.writeto(tmp_path / "psf.fits", psf)
    bad = np.zeros((30, 40), dtype="i2")
    bad[10, 14] = 3
    fits.writeto(tmp_path / "bad.fits", bad)
    (tmp_path / "bad.txt").write_text("# x y\n15 11\n900 900\n")
    return tmp_path


def read(folder, text, **options):
    path = folder / "fit.feedme"
    path.write_text(text)
    return read_galfit(path, **options)


def test_the_region_is_cut_about_the_position(folder):
    found = read(folder, CONTROLS + SERSIC + SKY)
    observation, frame = found.observation, found.frame
    # The middle of the stamp is the pixel (15, 11), counted from 1.
    height, width = observation.shape
    assert (height, width) == (31, 39)
    middle = observation.image[height // 2, width // 2]
    sky_at_centre = 7.0 + 0.1 * (15 - 19.5)
    assert middle == pytest.approx(10_014.0 - sky_at_centre)
    region = observation.image[frame.window] + frame.sky
    assert region.shape == (24, 30)
    assert region[0, 0] == pytest.approx(2004.0)
    assert frame.first == (5, 3)
    outside = np.ones(observation.shape, dtype=bool)
    outside[frame.window] = False
    assert observation.mask[outside].all()
    assert not observation.mask[frame.window].any()
    assert observation.noise[frame.window][0, 0] == pytest.approx(1.004)


def test_calibration_as_galfit_has_it(folder):
    found = read(folder, CONTROLS + SERSIC + SKY)
    observation = found.observation
    assert observation.zero_point == pytest.approx(25.0 + 5.0)  # J and the exposure time
    assert observation.pixel_scale == pytest.approx(0.2)
    # The even side loses its first row: GALFIT's centre is N/2 + 1.
    assert observation.psf.shape == (5, 7)
    assert np.unravel_index(observation.psf.argmax(), (5, 7)) == (2, 3)
    assert observation.psf_includes_pixel
    assert observation.sky_sigma == pytest.approx(FREE_SKY * observation.median_noise)
    assert found.fixed == {}
    assert found.frame.sky_values == (7.0, 0.1, 0.0)
    with fits.open(folder / "gal.fits") as hdus:
        whole = WCS(hdus[0].header)
    ra, dec = whole.all_pix2world(14, 10, 0)
    x, y = observation.wcs.all_world2pix(ra, dec, 0)
    assert (float(x), float(y)) == pytest.approx((19, 15), abs=1e-6)


def test_fixed_flags_hold_parameters(folder):
    text = SERSIC.replace(" 1\n", " 0\n").replace("1) 15.0 11.0 1 0", "1) 15.3 10.9 0 0")
    found = read(folder, CONTROLS + text + SKY.replace("7.0  1", "7.0  0"))
    expected = {
        "magnitude": 20.0,
        "effective_radius": 0.6,
        "sersic_index": 2.5,
        "axis_ratio": 0.7,
        "position_angle": 150.0,
        "center_x": 0.3,
        "center_y": -0.1,
    }
    assert found.fixed == pytest.approx(expected)
    assert found.observation.sky_sigma == 0.0


@pytest.mark.parametrize(
    ("kind", "index", "factor"),
    [("devauc", 4.0, 1.0), ("expdisk", 1.0, SCALE_LENGTH), ("gaussian", 0.5, 0.5)],
)
def test_other_profiles_are_sersic_profiles(folder, kind, index, factor):
    text = SERSIC.replace("sersic", kind).replace("4) 3.0  1", "4) 3.0  0")
    found = read(folder, CONTROLS + text.replace("5) 2.5  1\n", "") + SKY)
    expected = {"sersic_index": index, "effective_radius": 3.0 * factor * 0.2}
    assert found.fixed == pytest.approx(expected)


def test_the_scale_length_of_a_disc_is_that_of_its_half_light_radius():
    inside = 1.0 - (1.0 + SCALE_LENGTH) * np.exp(-SCALE_LENGTH)
    assert inside == pytest.approx(0.5, abs=1e-8)


@pytest.mark.parametrize("mask", ["bad.fits", "bad.txt"])
def test_bad_pixels_from_an_image_or_a_list(folder, mask):
    found = read(folder, CONTROLS.replace("F) none", f"F) {mask}") + SERSIC + SKY)
    masked = found.observation.mask[found.frame.window]
    assert np.argwhere(masked).tolist() == [[8, 10]]


def test_without_sigma_image_the_noise_is_that_of_the_border(folder):
    rng = np.random.default_rng(0)
    fits.writeto(folder / "noisy.fits", rng.normal(7.0, 2.0, (30, 40)))
    text = CONTROLS.replace("sigma.fits", "none").replace("gal.fits", "noisy.fits")
    observation = read(folder, text + SERSIC + SKY.replace("0.1", "0.0")).observation
    assert observation.flags & Flag.NO_NOISE
    assert observation.median_noise == pytest.approx(2.0, rel=0.15)


def test_a_fine_psf_lacks_the_pixel(folder):
    observation = read(folder, CONTROLS.replace("E) 1", "E) 2") + SERSIC + SKY).observation
    assert observation.psf_oversampling == 2
    assert not observation.psf_includes_pixel


def test_what_cannot_be_kept_is_said(folder):
    (folder / "ties").write_text("1 n 0.7 to 5\n")
    text = CONTROLS.replace("G) none", "G) ties").replace("psf.fits", "psf.fits kernel.fits")
    found = read(folder, text + SERSIC + SKY.replace("2) 0.1  0", "2) 0.1  1"))
    notes = " ".join(found.observation.notes)
    for remark in ("not applied (1 n 0.7 to 5)", "kernel.fits is not applied", "gradient is held"):
        assert remark in notes
    notes = " ".join(read(folder, CONTROLS + SERSIC).observation.notes)
    assert "no sky component" in notes


DISC = SERSIC.replace("sersic", "expdisk").replace("5) 2.5  1\n", "")
BULGE = SERSIC.replace("5) 2.5  1", "5) 4.0  0")


@pytest.mark.parametrize(
    ("components", "scene"),
    [
        (SERSIC, "sersic"),
        (PSF + SERSIC, "sersic+point"),
        (DISC + BULGE, "bulge+disc"),
        (SERSIC.replace("sersic", "devauc").replace("5) 2.5  1\n", "") + DISC, "bulge+disc"),
        (SERSIC + DISC, "sersic+sersic"),
        (BULGE + SERSIC, "sersic+sersic"),
    ],
)
def test_several_components_are_a_scene(folder, components, scene):
    found = read(folder, CONTROLS + components + SKY)
    assert found.scene == scene
    assert found.fixed == {}


def test_what_a_scene_cannot_keep_is_said(folder):
    (folder / "ties").write_text("# centres\n1_2  x  offset # kept\n1_2 y offset\n1/2 re 0 to 1\n")
    controls = CONTROLS.replace("G) none", "G) ties")
    disc = DISC.replace("9) 0.7  1", "9) 0.7  0")
    notes = " | ".join(read(folder, controls + SERSIC + disc + SKY).observation.notes)
    assert "fitted as the scene sersic+sersic, whose parts have one centre" in notes
    assert "held fixed by the expdisk of line 21: 9), the index of the expdisk" in notes
    assert "not applied (1/2 re 0 to 1)" in notes
    notes = " | ".join(read(folder, CONTROLS + BULGE + DISC + SKY).observation.notes)
    assert "held fixed" not in notes
    notes = " | ".join(read(folder, CONTROLS + BULGE + PSF + SKY).observation.notes)
    assert "held fixed by the sersic of line 13: 5)" in notes
    assert "held fixed by the psf of line 21: 3)" in notes


def test_options_win_over_the_file(folder):
    found = read(folder, CONTROLS + SERSIC + SKY, zero_point=27.0, sky_sigma=0.5, psf_fwhm=3.0)
    assert found.observation.zero_point == 27.0
    assert found.observation.sky_sigma == 0.5
    assert found.observation.flags & Flag.PSF_FROM_FWHM


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        (CONTROLS + 3 * SERSIC + SKY, InputError, "got sersic .line 13., sersic .line 21., sersic"),
        (CONTROLS + PSF + SKY, InputError, "got psf .line 13."),
        (CONTROLS + SKY, InputError, "got none"),
        (CONTROLS.replace("G) none", "G) gone") + SERSIC, FormatError, "names gone"),
        (CONTROLS + SERSIC.replace("sersic", "king"), InputError, "a king .* cannot be measured"),
        (CONTROLS + SERSIC + "F1) 0.1 20 1 1\n", InputError, "F1"),
        (CONTROLS + SERSIC + "8) 0.7 1\n", InputError, "GALFIT 3"),
        (CONTROLS + SERSIC.replace("9) 0.7  1\n", ""), FormatError, "no parameter 9"),
        (CONTROLS + SERSIC.replace("15.0", "39.0"), InputError, "outside the region"),
        (CONTROLS.replace("H) 5", "H) 500") + SERSIC, InputError, "holds no pixel"),
        (CONTROLS.replace("psf.fits", "gone.fits") + SERSIC, FormatError, "names gone.fits"),
        (CONTROLS.replace("A) gal.fits", "A) none") + SERSIC, FormatError, "names no image"),
        (CONTROLS.replace("F) none", "F) fit.feedme") + SERSIC, FormatError, "list of x and y"),
    ],
)
def test_what_cannot_be_is_refused_with_what_to_do(folder, text, error, message):
    with pytest.raises(error, match=message) as caught:
        read(folder, text)
    assert isinstance(caught.value, DeepLegatoError)


def test_extensions_of_the_image(folder):
    pixels = fits.getdata(folder / "gal.fits")
    hdus = [fits.PrimaryHDU(), fits.ImageHDU(pixels, name="SCI"), fits.ImageHDU(pixels + 1)]
    fits.HDUList(hdus).writeto(folder / "many.fits")
    for name, more in (("many.fits[2]", 1.0), ("many.fits[sci,1]", 0.0), ("many.fits[sci]", 0.0)):
        found = read(folder, CONTROLS.replace("gal.fits", name) + SERSIC)
        corner = found.observation.image[found.frame.window][0, 0]
        assert corner == pytest.approx(2004.0 + more)
