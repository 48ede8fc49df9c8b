from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from astropy import units as u

from deeplegato_pp.errors import InputError, NumericalError, RangeError, ShapeError
from deeplegato_pp.flags import Flag
from deeplegato_pp.inference.posterior.measurement import Measured, as_measured
from deeplegato_pp.inference.posterior.posterior import Measurement, Posterior
from deeplegato_pp.observation.observation import Observation
from deeplegato_pp.observation.preparation import prepare
from deeplegato_pp.scene.parameters import NAMES, PARAMETERS
from deeplegato_pp.scene.prior import PriorBox
from deeplegato_pp.scene.stamps import StampBatch
from deeplegato_pp.stats.weighted import QUANTILES


def one_row(draws=200, seed=0, log_weights=None, name="a", **options) -> Posterior:
    generator = torch.Generator().manual_seed(seed)
    box = PriorBox()
    w = 0.5 * torch.randn(1, draws, 7, generator=generator, dtype=torch.float64)
    obs = Observation.from_array(
        np.random.default_rng(seed).normal(size=(32, 32)), noise=1.0, psf_fwhm=3.0, name=name,
        pixel_scale=0.25, zero_point=30.5,
    )  # fmt: skip
    prepared = prepare(obs, 32)
    measurement = Measured(
        name=name, method="amortized", observation=obs, prepared=prepared, box=box,
        psf_fwhm=3.0, model="fake 1", **options,
    )  # fmt: skip
    stamps = StampBatch(
        torch.zeros(1, 32, 32), torch.ones(1, 32, 32), torch.zeros(1, 32, 32, dtype=torch.bool),
        torch.zeros(1, 43, 43), torch.ones(1), torch.zeros(1), torch.ones(1),
    )  # fmt: skip
    log_prob = -0.5 * (w**2).sum(-1) + box.log_jacobian(w)
    weights = None if log_weights is None else log_weights[None]
    return Posterior(box.to_physical(w), w, log_prob, [measurement], stamps, weights)


@pytest.fixture
def three() -> Posterior:
    return Posterior.concatenate([one_row(seed=i, name="abc"[i], chi2=float(i)) for i in range(3)])


def test_is_a_sequence_of_single_galaxies(three):
    assert len(three) == 3
    assert np.asarray(three.samples).shape == (3, 200, 7)
    assert three.samples.dtype == torch.float64
    assert [p.names for p in three] == ["a", "b", "c"] == three.names
    last = three[-1]
    assert np.asarray(last.samples).shape == (200, 7)
    assert last.log_prob.shape == (200,)
    assert last.chi2 == 2.0
    assert last.flags == 0
    assert last.method == "amortized"
    torch.testing.assert_close(last.samples, three.samples[2])
    assert three[[2, 0]].names == ["c", "a"]
    assert three[1:].names == ["b", "c"]
    with pytest.raises(IndexError):
        three[3]


def test_summary_has_every_column_with_its_unit(three):
    table = three.summary()
    assert len(table) == 3
    for p in PARAMETERS:
        for name in (p.name, f"{p.name}_std", *(f"{p.name}_{q}" for q in QUANTILES)):
            unit = getattr(table[name], "unit", None) or u.dimensionless_unscaled
            assert unit == u.Unit(p.unit), name
    assert table["flux"].unit == u.nJy
    assert table["surface_brightness"].unit == u.mag / u.arcsec**2
    assert table["surface_brightness_std"].unit == u.mag
    assert list(table["model"]) == ["fake 1"] * 3
    radius = three.samples[1, :, 1].numpy()
    assert table["effective_radius"][1].value == pytest.approx(radius.mean())
    assert table["effective_radius_std"][1].value == pytest.approx(radius.std())
    assert table["effective_radius_q50"][1].value == pytest.approx(np.median(radius))
    assert table["effective_radius_pix"][1].value == pytest.approx(radius.mean() / 0.25)
    assert table["x"][1].value == pytest.approx(15.5 + three.samples[1, :, 5].mean())
    assert table["prior_magnitude_lower"][0] == 15.0 * u.mag
    assert np.isnan(table["ess"]).all()


def test_rows_are_strict_json(three):
    failed = Posterior.failed(Measurement(name="bad", reason="all masked"), 200, 32)
    both = Posterior.concatenate([three, failed])
    rows = json.loads(json.dumps(both.rows(), allow_nan=False))
    assert [r["name"] for r in rows] == ["a", "b", "c", "bad"]
    bad = rows[-1]
    assert bad["flags"] == Flag.FAILED
    assert bad["flag_names"] == "failed"
    assert bad["reason"] == "all masked"
    assert all(bad[name] is None for name in (*NAMES, "magnitude_q50", "method", "chi2", "snr"))
    assert list(rows[0]) == list(bad)
    assert rows[0]["khat"] is None
    assert rows[0]["position_angle_sky"] is None
    assert math.isnan(both.summary()["magnitude"][-1].value)
    assert np.isnan(both.samples[-1].numpy()).all()


def test_weights_move_the_summary():
    log_weights = torch.full((200,), -math.inf, dtype=torch.float64)
    log_weights[[3, 5]] = torch.log(torch.tensor([1.0, 3.0], dtype=torch.float64))
    p = one_row(log_weights=log_weights)
    row = p.rows()[0]
    m = p.batch_samples[0, :, 0]
    assert row["magnitude"] == pytest.approx(float(0.25 * m[3] + 0.75 * m[5]))
    flux = 3631e9 * 10 ** (-0.4 * m)
    assert row["flux"] == pytest.approx(float(0.25 * flux[3] + 0.75 * flux[5]))
    drawn = p[0].draws(400)
    assert drawn.shape == (400, 7)
    assert int((drawn[:, 0] == m[5]).sum()) == 300


def test_draws_without_weights_are_the_samples(three):
    torch.testing.assert_close(three.draws(50), three.samples[:, :50])
    assert three.draws(500).shape == (3, 500, 7)
    torch.testing.assert_close(three.draws(500, seed=1), three.draws(500, seed=1))
    with pytest.raises(RangeError, match="at least 1"):
        three.draws(0)


def test_joining_pads_with_no_weight(three):
    short = one_row(draws=50, log_weights=torch.zeros(50, dtype=torch.float64))
    both = Posterior.concatenate([three, short])
    assert both.samples.shape == (4, 200, 7)
    assert torch.isneginf(both.log_weights[3, 50:]).all()
    assert torch.isfinite(both.log_weights[3, :50]).all()
    assert torch.isfinite(both.samples).all()
    alone, joined = short.rows()[0], both.rows()[3]
    for name in ("magnitude", "position_angle_std", "snr", "effective_radius_q84"):
        assert joined[name] == pytest.approx(alone[name], rel=1e-12)
    with pytest.raises(InputError):
        Posterior.concatenate([])


def test_position_angle_across_the_seam():
    p = one_row()
    angle = torch.linspace(-10, 10, 200, dtype=torch.float64) % 180
    samples = p.batch_samples.clone()
    samples[0, :, 4] = angle
    row = Posterior(samples, p.batch_w, p.batch_log_prob, p.measurements, p.stamps).rows()[0]
    assert min(row["position_angle"], 180 - row["position_angle"]) < 0.01
    assert row["position_angle_std"] == pytest.approx(20 / math.sqrt(12), rel=0.01)
    assert row["position_angle_q025"] > 170 > 10 > row["position_angle_q975"]


def test_shapes_and_nan_weights_are_refused():
    p = one_row()
    with pytest.raises(ShapeError, match="batch_log_prob"):
        Posterior(p.batch_samples, p.batch_w, p.batch_log_prob[:, :3], p.measurements, p.stamps)
    with pytest.raises(ShapeError, match="do not belong together"):
        Posterior(p.batch_samples, p.batch_w, p.batch_log_prob, [], p.stamps)
    weights = torch.zeros(200, dtype=torch.float64)
    weights[3] = math.nan
    with pytest.raises(NumericalError, match="NaN"):
        one_row(log_weights=weights).summary()


def test_a_record_of_what_was_not_measured_is_refused():
    row = one_row()
    assert as_measured(row.measurements[0]) is row.measurements[0]
    failed = Posterior.failed(Measurement(name="bad", reason="all masked"), 200, 32)
    with pytest.raises(InputError, match="bad was not measured: all masked"):
        as_measured(failed.measurements[0])
