"""The posterior of one galaxy in several bands, through the predictor."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from astropy.wcs import WCS

from band_galaxies import TRUTH, observe, small_model, two_bands
from deeplegato_pp import MultiBandObservation, Predictor
from deeplegato_pp.errors import ConfigError, InputError
from deeplegato_pp.flags import Flag
from deeplegato_pp.inference.posterior.tables import write_table
from deeplegato_pp.inference.refine.band_search import frame_of
from deeplegato_pp.observation.bands import AlignedBand
from deeplegato_pp.observation.preparation import prepare
from deeplegato_pp.scene.parameters import NAMES


@pytest.fixture(scope="module")
def predictor():
    return Predictor(small_model(), "cpu")


@pytest.fixture(scope="module")
def shared(predictor):
    return predictor.fit_bands(two_bands(), ess=200)


def assert_near(row, name: str, truth: float) -> None:
    assert abs(row[name] - truth) < 4.5 * row[f"{name}_std"], (name, row[name], truth)


def test_two_bands_make_one_row(shared):
    (row,) = shared.rows()
    for name, truth in zip(NAMES, TRUTH.tolist(), strict=True):
        assert_near(row, name, truth)
    assert_near(row, "magnitude_r", TRUTH[0].item() - 0.6)
    assert_near(row, "g_minus_r", 0.6)
    assert row["magnitude"] == pytest.approx(row["magnitude_g"])
    assert row["bands"] == "g,r"
    assert row["band_structure"] == "shared"
    assert row["ess"] >= 200
    assert row["khat"] < 0.7
    assert np.isfinite(row["log_evidence"])
    assert row["widths"] == "honest"
    assert 0.9 < row["structure"] < 1.6
    assert row["magnitude_r_q16"] < row["magnitude_r_q50"] < row["magnitude_r_q84"]
    assert abs(row["chi2_r"] - 1.0) < 0.2
    assert "effective_radius_r" not in row


def test_laplace_s_method_agrees_with_the_exact_one(predictor, shared):
    found = predictor.fit_bands(two_bands(), num_samples=2000, method="laplace")
    (row,), (exact,) = found.rows(), shared.rows()
    assert found.samples.shape == (2000, 7)
    assert row["method"] == "laplace"
    assert row["ess"] is None
    assert row["log_evidence_error"] is None
    assert abs(row["log_evidence"] - exact["log_evidence"]) < 1.0
    for name in (*NAMES, "magnitude_r", "g_minus_r"):
        assert abs(row[name] - exact[name]) < 0.3 * exact[f"{name}_std"], name
        assert row[f"{name}_std"] == pytest.approx(exact[f"{name}_std"], rel=0.2), name
    with pytest.raises(ConfigError, match="method must be one of"):
        predictor.fit_bands(two_bands(), method="hopeful")


def test_a_colour_s_error_knows_that_magnitudes_move_together(shared):
    record = shared.measurements[0].bands
    draws = {name: torch.from_numpy(x) for name, x in record.draws.items()}
    difference = draws["magnitude_g"] - draws["magnitude_r"]
    torch.testing.assert_close(difference, draws["g_minus_r"])
    (row,) = shared.rows()
    apart = np.hypot(row["magnitude_g_std"], row["magnitude_r_std"])
    assert row["g_minus_r_std"] < apart


def test_the_posterior_is_an_ordinary_one(shared):
    assert shared.samples.shape[1] == 7
    assert shared.log_weights.shape == shared.samples.shape[:1]
    assert shared.draws(10).shape == (10, 7)
    noise = shared.under_noise()
    assert not torch.equal(noise.samples, shared.samples)
    torch.testing.assert_close(
        shared.samples[:, 0], torch.from_numpy(shared.measurements[0].bands.draws["magnitude_g"])
    )
    with pytest.raises(InputError, match="fitted in several bands"):
        shared.reweight(noise_factor=1.1)


def test_tables_have_units(shared, tmp_path):
    table = shared.summary()
    assert str(table["magnitude_r"].unit) == "mag"
    assert str(table["g_minus_r_std"].unit) == "mag"
    assert "in r" in table["magnitude_r"].info.description
    write_table(shared.rows(), tmp_path / "t.parquet")
    fields = pq.read_schema(tmp_path / "t.parquet")
    assert fields.field("magnitude_r_q84").metadata[b"unit"] == b"mag"
    write_table(shared.rows(), tmp_path / "t.json")
    (row,) = json.loads((tmp_path / "t.json").read_text())
    assert row["units"]["g_minus_r"] == "mag"
    assert row["flag_names_g"] is not None


@pytest.mark.parametrize("structure", ["linear", "free"])
def test_structures_that_depend_on_the_band(predictor, structure):
    (row,) = predictor.fit_bands(two_bands(), structure, ess=100).rows()
    for band in ("g", "r"):
        for name, truth in zip(NAMES[1:5], TRUTH[1:5].tolist(), strict=True):
            assert_near(row, f"{name}_{band}", truth)
    assert row["effective_radius"] == pytest.approx(row["effective_radius_g"])
    assert row["effective_radius_g"] != row["effective_radius_r"]


def test_a_turned_band(predictor):
    """The second band's camera is turned by 50 degrees, which its WCS says."""
    first, second = WCS(naxis=2), WCS(naxis=2)
    for wcs, turn in ((first, 0.0), (second, 50.0)):
        wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
        wcs.wcs.crpix = [24.5, 24.5]
        wcs.wcs.crval = [30.0, 10.0]
        c, s = np.cos(np.radians(turn)), np.sin(np.radians(turn))
        wcs.wcs.cd = np.diag([-1.0, 1.0]) @ np.array([[c, s], [-s, c]]) * 0.25 / 3600.0
    bands = {"g": observe(20.5, wcs=first), "r": observe(20.0, angle=90.0, seed=1, wcs=second)}
    found = predictor.fit_bands(MultiBandObservation(bands), ess=100)
    (row,) = found.rows()
    for name, truth in zip(NAMES, TRUTH.tolist(), strict=True):
        assert_near(row, name, truth)
    assert row["chi2_r"] < 1.2
    assert row["notes"] is None


def test_the_seed_decides(predictor, shared):
    again = predictor.fit_bands([two_bands()], ess=200)
    torch.testing.assert_close(again.batch_samples[0], shared.samples, atol=1e-6, rtol=1e-6)


def test_the_stated_noise_alone(predictor):
    found = predictor.fit_bands(two_bands(), ess=100, widths="noise")
    assert found.widths == "noise"
    (row,) = found.rows()
    assert row["magnitude_r_std"] == pytest.approx(row["magnitude_r_std_noise"])


def test_a_band_in_which_nothing_is_seen(predictor):
    bands = {"g": observe(20.5), "r": observe(40.0, seed=1)}
    found = predictor.fit_bands(MultiBandObservation(bands), ess=100)
    (row,) = found.rows()
    assert "undetected" in row["flag_names_r"]
    assert "undetected" not in row["flag_names_g"]
    assert not found.flags & Flag.UNDETECTED
    assert_near(row, "magnitude_g", 20.5)


def test_one_galaxy_does_not_end_a_list(predictor):
    good, bad = two_bands(), two_bands()
    bad.aligned[1].observation.image[:] = 1e7
    found = predictor.fit_bands([bad, good], ess=100)
    assert "band r could not be measured" in found.reasons[0]
    assert found.flags[0] & Flag.FAILED
    assert found.measurements[1].measured
    with pytest.raises(InputError, match="band r could not be measured"):
        predictor.fit_bands(bad)


def test_what_cannot_be(predictor):
    with pytest.raises(ConfigError, match="expected one of shared, linear, free"):
        predictor.fit_bands(two_bands(), "quadratic")
    without = MultiBandObservation(two_bands().observations)
    with pytest.raises(ConfigError, match="needs one wavelength for each of 2 bands"):
        predictor.fit_bands(without, "linear")


def test_binned_and_shifted_stamps():
    """A point of the first stamp lies on the band's where the images say."""
    first = replace(prepare(observe(20.5), 24, bin=2), offset_x=0.5, offset_y=-0.5)
    own = replace(prepare(observe(20.5), 48), offset_x=0.25, offset_y=1.0)
    band = AlignedBand(observe(20.5), np.array([[0.0, -2.0], [2.0, 0.0]]), np.array([0.1, 0.2]))
    frame = frame_of(band, first, own)
    x, y = 1.0, 3.0
    image = np.array(first.center_to_user(x, y))
    there = band.matrix @ image + band.offset
    expected = own.center_from_user(*there)
    found = frame.center(*torch.tensor([x, y], dtype=torch.float64))
    assert [float(f) for f in found] == pytest.approx(expected)
    assert frame.size == pytest.approx(2.0)
    assert frame.rotation == pytest.approx(90.0)
