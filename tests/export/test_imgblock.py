from __future__ import annotations

import numpy as np
import pytest
import torch
from astropy.io import fits

from deeplegato_pp.errors import InputError
from deeplegato_pp.export.imgblock import render_native, write_imgblock
from deeplegato_pp.inference import Predictor
from deeplegato_pp.observation.effective_psf import moffat_psf
from deeplegato_pp.observation.galfit import Frame
from deeplegato_pp.observation.observation import Observation
from fake_model import TRUTH, FakeModel, truth_image


@pytest.fixture(scope="module")
def posterior():
    """The fake network's posterior of its galaxy on 100 x 90 px, a sky of 0.5 left in."""
    image = truth_image().numpy()[20:110, 10:110] + 0.5
    observation = Observation.from_array(
        image, moffat_psf(3.0)[0], 1.0, pixel_scale=0.25, zero_point=30.5, sky_sigma=1.0, name="g"
    )
    predictor = Predictor(FakeModel(TRUTH), "cpu")
    return predictor.posterior(observation, 100, 0)


def test_the_pixels_add_up(posterior, tmp_path):
    write_imgblock(posterior, tmp_path / "b.fits")
    with fits.open(tmp_path / "b.fits") as hdus:
        names = [hdu.name for hdu in hdus[1:]]
        original, model, residual, galaxy = (hdu.data.astype(float) for hdu in hdus[1:])
    assert names == ["ORIGINAL", "MODEL", "RESIDUAL", "SERSIC"]
    assert original.shape == (90, 100)
    np.testing.assert_allclose(original, model + residual, atol=1e-4)
    sky = model - galaxy
    assert np.ptp(sky) < 1e-3
    assert galaxy.sum() > 0.9 * 10 ** (-0.4 * (float(TRUTH[0]) - 30.5))


def test_the_header_holds_galfits_numbers(posterior, tmp_path):
    # The stamp is the region that begins at pixel (11, 21) of its file.
    frame = Frame((slice(0, 90), slice(0, 100)), (11, 21), np.full((90, 100), 3.0), (3.0, 0.0, 0.0))
    write_imgblock(posterior, tmp_path / "b.fits", frame, ("sersic_index",))
    header = fits.getheader(tmp_path / "b.fits", 2)
    (row,) = posterior.rows()
    value, error = (float(word) for word in header["1_RE"].split(" +/- "))
    assert value == pytest.approx(row["effective_radius"] / 0.25, rel=1e-3)
    assert error == pytest.approx(row["effective_radius_std"] / 0.25, rel=1e-2)
    x, y = (float(header[key].split()[0]) for key in ("1_XC", "1_YC"))
    assert x == pytest.approx(row["x"] + 11, abs=1e-3)
    assert y == pytest.approx(row["y"] + 21, abs=1e-3)
    assert header["1_N"] == f"[{row['sersic_index']:.4f}]"
    assert float(header["1_PA"].split()[0]) == pytest.approx(row["position_angle"] - 180, abs=1e-3)
    assert float(header["1_MAG"].split()[0]) == pytest.approx(row["magnitude"], abs=1e-3)
    assert (header["COMP_1"], header["COMP_2"]) == ("sersic", "sky")
    residual = fits.getdata(tmp_path / "b.fits", 3)
    sky = float(header["2_SKY"].split()[0])
    assert sky == pytest.approx(3.0 + posterior.residual_image().sky, abs=1e-3)
    assert (header["NFREE"], header["NFIX"], header["NDOF"]) == (6, 1, 90 * 100 - 6)
    assert header["CHI2NU"] == pytest.approx(row["chi2"])
    assert residual.std() == pytest.approx(header["CHI2NU"] ** 0.5, rel=0.05)


def test_the_model_is_the_stamps(posterior):
    residuals = posterior.residual_image()
    image = render_native(torch.from_numpy(residuals.parameters), posterior.observations)
    left, bottom = (round(v) for v in residuals.origin)
    inside = residuals.model[-bottom : -bottom + 90, -left : -left + 100] - residuals.sky
    np.testing.assert_allclose(image, inside, atol=2e-4 * image.max())


def test_a_wrong_name_is_refused(posterior, tmp_path):
    with pytest.raises(InputError, match="unknown suffix"):
        write_imgblock(posterior, tmp_path / "b.png")
    assert not list(tmp_path.iterdir())
