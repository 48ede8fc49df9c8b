"""Covariances between parameters: consistent with the widths, circular in the angle, in tables."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from astropy import units as u
from astropy.table import QTable

from deeplegato_pp import Posterior
from deeplegato_pp.inference.posterior import covariance, tables
from deeplegato_pp.inference.posterior.scene_record import SceneRecord
from deeplegato_pp.scene.parameters import INDEX, NAMES, PARAMETERS
from fake_model import TRUTH
from widened_posteriors import posterior_with, widening_of


def drawn(draws: int = 4000) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Correlated normal draws about an angle of 1 degree, their covariance, and weights."""
    rng = np.random.default_rng(0)
    factor = np.tril(rng.normal(size=(7, 7))) + 3.0 * np.eye(7)
    samples = TRUTH.double().numpy() + rng.normal(size=(draws, 7)) @ factor.T
    samples[:, 4] += 1.0 - TRUTH[4].item()
    samples[:, 4] %= 180.0
    weights = rng.uniform(size=draws)
    return samples, factor @ factor.T, weights / weights.sum()


@pytest.mark.parametrize("weighted", [False, True])
def test_of_draws_on_both_sides_of_zero_degrees(weighted):
    samples, truth, weights = drawn()
    found = covariance.covariance_of(samples, weights if weighted else None)
    scale = np.sqrt(np.outer(truth.diagonal(), truth.diagonal()))
    np.testing.assert_allclose(found / scale, truth / scale, atol=0.06)
    assert np.linalg.eigvalsh(found).min() > 0


def test_it_belongs_to_the_widths_that_the_row_reports():
    posterior = posterior_with(widening_of(0.3)).widened()
    honest, noise = posterior.covariance(), posterior.covariance(noise=True)
    assert honest.shape == noise.shape == (1, 7, 7)
    (row,) = posterior.rows(covariances=True)
    for i, p in enumerate(PARAMETERS):
        assert math.sqrt(honest[0, i, i]) == pytest.approx(row[f"{p.name}_std"], rel=1e-9)
        assert math.sqrt(noise[0, i, i]) == pytest.approx(row[f"{p.name}_std_noise"], rel=1e-9)
    assert honest[0, 1, 1] > 4.0 * noise[0, 1, 1]  # the widening is along R_e
    assert posterior[0].covariance().shape == (7, 7)
    for a, b in covariance.PAIRS:
        i, j = INDEX[a.name], INDEX[b.name]
        assert row[f"cov_{a.name}_{b.name}"] == pytest.approx(honest[0, i, j])
        assert row[f"cov_{a.name}_{b.name}_noise"] == pytest.approx(noise[0, i, j])


def test_columns_come_when_asked_for_with_units(tmp_path):
    posterior = posterior_with(None)
    assert not any(name.startswith("cov_") for name in posterior.rows()[0])
    rows = posterior.rows(covariances=True)
    assert len([name for name in rows[0] if name.startswith("cov_")]) == 42
    for suffix in (".ecsv", ".fits"):
        tables.write_table(rows, tmp_path / f"t{suffix}")
        table = QTable.read(tmp_path / f"t{suffix}")
        for a, b in covariance.PAIRS:
            column = table[f"cov_{a.name}_{b.name}"]
            assert column.info.description.startswith("covariance of")
            product = table[a.name][0] * table[b.name][0]
            u.Quantity(column[0] / product).to_value("")  # raises unless units are the product


def test_galaxies_that_failed_have_none():
    posterior = posterior_with(None)
    failed = Posterior.failed(posterior.measurements[0], 400, 4)
    both = Posterior.concatenate([posterior, failed])
    matrices = both.covariance()
    assert np.isfinite(matrices[0]).all()
    assert np.isnan(matrices[1]).all()
    assert both.rows(covariances=True)[1]["cov_magnitude_effective_radius"] is None


def test_a_sum_of_components_varies_by_itself():
    posterior = posterior_with(None)
    single = posterior.covariance()[0]
    rng = np.random.default_rng(1)
    magnitude = rng.normal(20.0, 0.1, 300)
    draws = {
        "magnitude": magnitude,
        "effective_radius": 1.0 - 0.5 * (magnitude - 20.0),
        "center_x": rng.normal(size=300),
        "center_y": rng.normal(size=300),
    }
    record = SceneRecord(
        ("bulge+disc",), "bulge+disc", *({"bulge+disc": 0.0} for _ in range(3)),
        draws, {k: 0.5 * v for k, v in draws.items()}, np.full(300, 1 / 300),
    )  # fmt: skip
    measured = [replace(posterior.measurements[0], scene=record)]
    posterior = replace(posterior, measurements=measured)
    found = posterior.covariance()[0]
    assert found[0, 1] == pytest.approx(-0.5 * magnitude.var())
    assert posterior.covariance(noise=True)[0, 0, 1] == pytest.approx(-0.125 * magnitude.var())
    index, angle = NAMES.index("sersic_index"), NAMES.index("position_angle")
    assert np.isnan(found[0, index])
    assert found[index, angle] == single[index, angle]
    (row,) = posterior.rows(covariances=True)
    assert row["magnitude_std"] == pytest.approx(math.sqrt(found[0, 0]))
    assert row["cov_magnitude_sersic_index"] is None


def test_nan_draws_have_no_covariance():
    assert np.isnan(covariance.covariance_of(np.full((5, 7), math.nan))).all()
    assert torch.isfinite(torch.from_numpy(covariance.covariance_of(drawn(50)[0]))).all()
