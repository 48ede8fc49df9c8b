"""Scenes through the predictor: rows, tables, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from astropy.table import QTable

from deeplegato_pp.cli.app import main
from deeplegato_pp.errors import ConfigError
from deeplegato_pp.inference import Predictor
from deeplegato_pp.inference.posterior.tables import write_table
from deeplegato_pp.observation import Observation
from deeplegato_pp.scene.components import flux_of
from deeplegato_pp.scene.render.renderer import render_sersic
from fake_model import FakeModel
from simulated_galaxies import make_psf

DISC = [20.0, 1.0, 1.0, 0.6, 40.0, 0.0, 0.0]


@pytest.fixture(scope="module")
def rows():
    """A disc with a bright point at its centre, and one row that cannot be measured."""
    psf = make_psf(3.0, 15)
    disc = torch.tensor([DISC], dtype=torch.float64)
    columns = [flux_of(disc[:, 0]), disc[:, 1] / 0.25, *disc[:, 2:].unbind(-1)]
    image = render_sersic(*columns, psf, 48)[0].numpy()
    image[17:32, 16:31] += float(flux_of(torch.tensor(21.0))) * psf.numpy()
    image += np.random.default_rng(1).normal(size=image.shape)
    options = {"psf": psf.numpy(), "noise": 1.0, "pixel_scale": 0.25, "zero_point": 30.5}
    predictor = Predictor(FakeModel(torch.tensor(DISC, dtype=torch.float64), 0.1), "cpu")
    predictor.model.image_size = 48
    bad = Observation.from_array(np.full((48, 48), 2e6), **options)
    network = predictor.posterior([Observation.from_array(image, **options), bad], 100)
    return predictor.refine(network, ess=60, star_odds=None, scene="sersic+point").rows()


def test_rows_hold_the_parts_and_the_sum(rows):
    row, failed = rows
    assert list(row) == list(failed)
    assert row["best_scene"] == "sersic+point"
    assert row["scene_odds"] > 3.0  # a PSF known to 2 % only
    assert row["point_magnitude"] == pytest.approx(21.0, abs=4.5 * row["point_magnitude_std"] + 0.1)
    assert row["host_effective_radius_std_noise"] > 0
    total = -2.5 * np.log10(10 ** (-0.4 * 20.0) + 10 ** (-0.4 * 21.0))
    assert row["magnitude"] == pytest.approx(total, abs=0.1)
    assert row["effective_radius"] < row["host_effective_radius"]
    assert failed["best_scene"] is None
    assert failed["point_to_total"] is None


@pytest.mark.parametrize("suffix", ["ecsv", "fits", "parquet", "json"])
def test_every_table_holds_them(rows, tmp_path, suffix):
    path = tmp_path / f"table.{suffix}"
    write_table(rows, path)
    if suffix == "json":
        row = json.loads(path.read_text())[0]
        assert row["units"]["point_magnitude"] == "mag"
        value = row["point_to_total"]
    elif suffix == "parquet":
        row = pq.read_table(path).to_pylist()[0]
        assert row["best_scene"] == "sersic+point"
        value = row["point_to_total"]
    else:
        table = QTable.read(path)
        assert str(table["best_scene"][0]) == "sersic+point"
        value = float(table["point_to_total"][0])
    assert value == pytest.approx(rows[0]["point_to_total"])


def test_what_does_not_go_together_is_one_line(capsys):
    for arguments, message in (
        (["--scene", "disk"], "unknown scene 'disk'"),
        (["--scene", "auto", "--fix", "sersic_index=4"], "parameters are fixed"),
        (["--scene", "auto", "--no-refine"], "--scene belongs to the exact posterior"),
    ):
        assert main(["predict", "a.fits", *arguments]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1


def test_the_predictor_refuses_unknown_scenes():
    predictor = Predictor(FakeModel(torch.tensor(DISC, dtype=torch.float64)), "cpu")
    predictor.model.image_size = 48
    network = predictor.posterior(np.random.default_rng(0).normal(size=(48, 48)), 10)
    with pytest.raises(ConfigError, match="unknown scene"):
        predictor.refine(network, scene="two")
