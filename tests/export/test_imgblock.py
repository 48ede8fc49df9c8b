from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from astropy.io import fits

from deeplegato_pp.data import SersicSimulator
from deeplegato_pp.errors import InputError
from deeplegato_pp.export.galfit_header import part_image, parts_of
from deeplegato_pp.export.imgblock import write_imgblock
from deeplegato_pp.inference import Predictor
from deeplegato_pp.inference.posterior.parts import Part
from deeplegato_pp.inference.posterior.scene_record import SceneRecord
from deeplegato_pp.observation.effective_psf import moffat_psf
from deeplegato_pp.observation.galfit import Frame
from deeplegato_pp.observation.observation import Observation
from fake_model import TRUTH, FakeModel, truth_image


@pytest.fixture(scope="module")
def posterior():
    """The fake network's posterior of its galaxy on 100 x 90 px, a sky of 0.5 left in."""
    image = truth_image().numpy()[20:110, 10:110] + 0.5
    observation = Observation.from_array(
        image,
        moffat_psf(3.0)[0],
        1.0,
        pixel_scale=0.25,
        zero_point=30.5,
        sky_sigma=1.0,
        name="g",
        psf_error=0.0,
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
    (part,) = parts_of(posterior, residuals, ())
    image = part_image(part, posterior.observations)
    left, bottom = (round(v) for v in residuals.origin)
    inside = residuals.model[-bottom : -bottom + 90, -left : -left + 100] - residuals.sky
    np.testing.assert_allclose(image, inside, atol=2e-4 * image.max())


BULGE = {"magnitude": 22.0, "effective_radius": 0.5, "sersic_index": 4.0, "axis_ratio": 0.9,
         "position_angle": 10.0}  # fmt: skip
DISC = {"magnitude": 21.0, "effective_radius": 2.0, "sersic_index": 1.0, "axis_ratio": 0.5,
        "position_angle": 175.0}  # fmt: skip


def test_a_bulge_and_a_disc_are_two_components(tmp_path):
    parts = torch.tensor([[*p.values(), 0.5, -1.0] for p in (BULGE, DISC)], dtype=torch.float64)
    psf = torch.from_numpy(moffat_psf(3.0)[0])
    image = SersicSimulator(64).render(parts, psf).sum(0).numpy()
    image = image + 0.5 + np.random.default_rng(0).normal(size=image.shape)
    observation = Observation.from_array(
        image, psf.numpy(), 1.0, pixel_scale=0.25, zero_point=30.5, sky_sigma=1.0
    )
    single = Predictor(FakeModel(TRUTH), "cpu").posterior(observation, 50, 0)
    columns = {f"{name}_{k}": v for name, p in (("bulge", BULGE), ("disc", DISC))
               for k, v in p.items()}  # fmt: skip
    columns |= {"center_x": 0.5, "center_y": -1.0}
    scatter = np.tile([-1.0, 1.0], 25)
    draws = {k: v + scatter * (0.0 if "index" in k else 0.01) for k, v in columns.items()}
    record = SceneRecord(
        ("bulge+disc",), "bulge+disc", *({"bulge+disc": 0.0} for _ in range(3)), draws, draws, None
    )
    both = replace(single, measurements=[replace(single.measurements[0], scene=record)])
    write_imgblock(both, tmp_path / "b.fits")
    with fits.open(tmp_path / "b.fits") as hdus:
        names = [hdu.name for hdu in hdus[1:]]
        original, model, residual, bulge, disc = (hdu.data.astype(float) for hdu in hdus[1:])
        header = hdus[2].header
    assert names == ["ORIGINAL", "MODEL", "RESIDUAL", "BULGE", "DISC"]
    np.testing.assert_allclose(original, model + residual, atol=1e-4)
    assert np.ptp(model - bulge - disc) < 1e-3
    assert residual.std() == pytest.approx(1.0, abs=0.05)
    assert header["CHI2NU"] == pytest.approx(1.0, abs=0.1)
    assert [header[f"COMP_{i}"] for i in (1, 2, 3)] == ["sersic", "sersic", "sky"]
    assert header["1_N"] == "[4.0000]"
    assert header["2_MAG"].startswith("21.0000 +/- 0.0")
    assert float(header["2_PA"].split()[0]) == pytest.approx(-5.0)
    assert float(header["2_XC"].split()[0]) == pytest.approx(31.5 + 0.5 + 1)
    assert float(header["3_SKY"].split()[0]) == pytest.approx(0.5, abs=0.1)
    # Two profiles of a fixed index with one centre: magnitude, radius, q and PA of each.
    assert (header["NFREE"], header["NFIX"]) == (10, 2)


def test_a_point_source_is_galfits_psf():
    observation = Observation.from_array(
        np.zeros((21, 31)), moffat_psf(2.0)[0], 1.0, pixel_scale=0.25, zero_point=25.0
    )
    part = Part("point", {"magnitude": 20.0, "center_x": 2.0, "center_y": -3.0}, {})
    image = part_image(part, observation)
    assert image.shape == (21, 31)
    assert image.sum() == pytest.approx(100.0, rel=0.03)
    assert np.unravel_index(image.argmax(), image.shape) == (7, 17)


def test_a_wrong_name_is_refused(posterior, tmp_path):
    with pytest.raises(InputError, match="unknown suffix"):
        write_imgblock(posterior, tmp_path / "b.png")
    assert not list(tmp_path.iterdir())
