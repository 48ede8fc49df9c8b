from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from astropy import units as u
from astropy.table import QTable

from deeplegato_pp import Observation, Predictor
from deeplegato_pp.errors import InputError
from deeplegato_pp.inference.posterior import tables
from deeplegato_pp.inference.posterior.posterior import Posterior
from deeplegato_pp.scene.parameters import NAMES
from fake_model import TRUTH, FakeModel, truth_image


@pytest.fixture(scope="module")
def posterior() -> Posterior:
    obs = Observation.from_array(
        truth_image().numpy(), noise=1.0, psf_fwhm=3.0, pixel_scale=0.25, zero_point=30.5, name="a"
    )
    return Predictor(FakeModel(TRUTH), "cpu").posterior([obs, np.zeros((1, 1, 1)), obs], 60)


def files(folder) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


@pytest.mark.parametrize("suffix", [".ecsv", ".fits"])
def test_tables_of_astropy_keep_units(posterior, tmp_path, suffix):
    path = tmp_path / f"t{suffix}"
    tables.write_table(posterior.rows(), path)
    table = QTable.read(path)
    assert len(table) == 3
    expected = posterior.summary()
    assert table.colnames == expected.colnames
    assert table["effective_radius"].unit == u.arcsec
    assert table["flux"].unit == u.nJy
    assert table["magnitude"][0] == expected["magnitude"][0]
    assert np.isnan(table["magnitude"][1])
    assert np.array(table["flags"]).tolist() == posterior.flags
    assert str(table["reason"][1]) == posterior.reasons[1]
    assert files(tmp_path) == [path.name]


@pytest.mark.parametrize("suffix", [".ecsv", ".fits", ".parquet", ".json"])
def test_names_beyond_ascii_come_back(posterior, tmp_path, suffix):
    name = "galax\u00eda_\u03b1 1"
    rows = [row | {"name": name} for row in posterior.rows()]
    path = tmp_path / f"{name}{suffix}"
    tables.write_table(rows, path)
    if suffix == ".json":
        found = [row["name"] for row in json.loads(path.read_text(encoding="utf-8"))]
    elif suffix == ".parquet":
        found = pq.read_table(path).column("name").to_pylist()
    else:
        found = [str(n) for n in QTable.read(path)["name"]]
    assert found == [name] * 3


def test_json_is_strict_and_null_where_nothing_is_known(posterior, tmp_path):
    path = tmp_path / "t.json"
    tables.write_table(posterior.rows(), path)

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    rows = json.loads(path.read_text(), parse_constant=refuse)
    assert [r["name"] for r in rows] == ["a", "", "a"]
    assert rows[1]["magnitude"] is None
    assert rows[0]["magnitude"] == posterior.rows()[0]["magnitude"]


UNITS = {
    "surface_brightness": "mag / arcsec2",
    "surface_brightness_std": "mag",
    "flux": "nJy",
    "flux_std": "nJy",
    "effective_radius_circ": "arcsec",
    "effective_radius_pix": "pix",
    "e1": "",
    "e2_std": "",
    "light_fraction": "",
    "radius_over_fwhm": "",
    "flux_limit": "nJy",
    "magnitude_limit": "mag",
    "star_probability": "",
    "p_value": "",
    "num_modes": "",
}


def read_units(path) -> dict[str, str]:
    if path.suffix == ".json":
        (first, *_) = json.loads(path.read_text())
        return {name: first["units"].get(name, "") for name in first}
    if path.suffix == ".parquet":
        schema = pq.read_table(path).schema
        return {f.name: f.metadata[b"unit"].decode() for f in schema}
    table = QTable.read(path)
    return {n: str(getattr(table[n], "unit", None) or "") for n in table.colnames}


@pytest.mark.parametrize("suffix", tables.TABLE_SUFFIXES)
def test_derived_columns_and_their_units_are_in_every_format(posterior, tmp_path, suffix):
    path = tmp_path / f"t{suffix}"
    tables.write_table(posterior.rows(), path)
    found = read_units(path)
    for name, unit in UNITS.items():
        if unit:
            assert u.Unit(found[name]) == u.Unit(unit), name
        else:
            assert found[name] == "", name


def test_parquet_has_nulls_and_units(posterior, tmp_path):
    path = tmp_path / "t.parquet"
    tables.write_table([{"file": "f"} | r for r in posterior.rows()], path)
    table = pq.read_table(path)
    assert table.column_names[0] == "file"
    assert table["magnitude"].null_count == 1
    assert table["magnitude"][2].as_py() == posterior.rows()[2]["magnitude"]
    assert table.schema.field("flux").metadata[b"unit"] == b"nJy"
    assert table["flags"].to_pylist() == posterior.flags
    assert str(table.schema.field("khat").type) == "double"


def test_samples_as_arrays(posterior, tmp_path):
    path = tmp_path / "s.npz"
    tables.write_samples(posterior, path)
    with np.load(path) as f:
        np.testing.assert_array_equal(f["samples"], posterior.samples.numpy())
        np.testing.assert_array_equal(f["log_prob"], posterior.log_prob.numpy())
        assert tuple(f["parameter"]) == NAMES
        assert f["name"].tolist() == ["a", "", "a"]
        assert "log_weights" not in f


def test_samples_as_lines(posterior, tmp_path):
    path = tmp_path / "s.parquet"
    tables.write_samples(posterior, path)
    table = pq.read_table(path)
    assert table.num_rows == 120
    assert set(table["object"].to_pylist()) == {0, 2}
    radius = table["effective_radius"].to_numpy()[60:]
    np.testing.assert_array_equal(radius, posterior.samples[2, :, 1].numpy())
    assert table.schema.metadata[b"effective_radius"] == b"arcsec"
    assert table["log_weight"].to_numpy().tolist() == [0.0] * 120


@pytest.mark.parametrize(
    ("name", "message"),
    [("a.txt", "unknown suffix"), ("a", "unknown suffix"), ("no/a.json", "does not exist")],
)
def test_what_cannot_be_written_is_refused(tmp_path, name, message):
    with pytest.raises(InputError, match=message):
        tables.check_output(tmp_path / name, tables.TABLE_SUFFIXES, "table")
    (tmp_path / "d.json").mkdir()
    with pytest.raises(InputError, match="is a folder"):
        tables.check_output(tmp_path / "d.json", tables.TABLE_SUFFIXES, "table")


def test_a_failed_write_leaves_the_old_file_alone(posterior, tmp_path):
    path = tmp_path / "t.json"
    path.write_text("old")
    rows = posterior.rows()
    rows[2]["magnitude"] = float("nan")
    with pytest.raises(ValueError, match="JSON"):
        tables.write_table(rows, path)
    assert path.read_text() == "old"
    assert files(tmp_path) == ["t.json"]
    tables.write_table(posterior.rows(), path)
    assert json.loads(path.read_text())[0]["name"] == "a"
