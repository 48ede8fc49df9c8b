from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from astropy import units as u
from astropy.io import fits
from astropy.table import QTable, Table

from deeplegato_pp.catalog import output
from deeplegato_pp.catalog.columns import schema, to_arrow
from deeplegato_pp.catalog.output import (
    check_catalogue_output,
    read_catalogue,
    write_catalogue,
)
from deeplegato_pp.errors import InputError

ROWS = [
    {"id": i, "name": "n" * (1 + i), "magnitude": 20.0 + i, "flags": i, "refined": 0, "ra": 0.1 * i,
     "reason": "not µ-measured" if i == 2 else None, "bin": None if i == 2 else 1}
    for i in range(5)
]  # fmt: skip
ABOUT = {"software": "s", "model": "m", "command": "c", "configuration": "x" * 200}


@pytest.fixture
def parts(tmp_path):
    """Five rows in three part files."""
    paths = []
    for i in range(0, 5, 2):
        paths.append(tmp_path / f"work-{i}.parquet")
        pq.write_table(to_arrow(ROWS[i : i + 2], schema(False, False)), paths[-1])
    return paths


@pytest.fixture(params=["c.parquet", "c.fits", "c.ecsv", "folder"])
def path(request, tmp_path, parts, monkeypatch):
    """A catalogue of each format, joined two rows at a time."""
    monkeypatch.setattr(output, "ROWS_PER_GROUP", 2)
    monkeypatch.setattr(output, "ROWS_PER_FILE", 2)
    path = tmp_path / request.param
    if not path.suffix:
        path.mkdir()
    write_catalogue(parts, path, schema(False, False, ABOUT))
    return path


def test_every_format_gives_the_rows_back(path):
    table = read_catalogue(path)
    assert np.asarray(table["id"]).tolist() == [0, 1, 2, 3, 4]
    assert [str(n) for n in table["name"]] == ["n" * (1 + i) for i in range(5)]
    np.testing.assert_array_equal(table["magnitude"].value, 20.0 + np.arange(5))
    assert table["magnitude"].unit == u.mag
    assert np.isnan(table["effective_radius"].value).all()
    assert "measured" in str(table["reason"][2])
    assert table["effective_radius"].info.description.startswith("half-light radius")


@pytest.mark.parametrize("path", ["c.fits"], indirect=True)
def test_fits_is_what_the_standard_and_topcat_expect(path):
    with fits.open(path) as hdus:
        hdus.verify("exception")
        header = hdus[1].header
        assert header["NAXIS2"] == 5
        assert header["CONFIG"] == "x" * 200
        names = [c.name for c in hdus[1].columns]
        assert len({n.lower() for n in names}) == len(names)
        assert all(n.replace("_", "a").isalnum() and len(n) <= 68 for n in names)
        for column in hdus[1].columns:
            if column.unit:
                u.Unit(column.unit, format="fits")
    assert path.stat().st_size % 2880 == 0
    assert isinstance(QTable.read(path)["ra"], u.Quantity)


@pytest.mark.parametrize("path", ["c.parquet"], indirect=True)
def test_parquet_is_read_by_all(path):
    assert pq.read_table(path).num_rows == 5
    assert pd.read_parquet(path)["id"].tolist() == [0, 1, 2, 3, 4]
    table = Table.read(path)
    assert table["magnitude"].unit == u.mag
    assert table["name"][4] == "nnnnn"
    assert pq.ParquetFile(path).metadata.row_group(0).column(0).compression == "ZSTD"


@pytest.mark.parametrize("path", ["folder"], indirect=True)
def test_a_folder_is_a_data_set_of_files(path):
    assert [p.name for p in sorted(path.iterdir())] == [f"part-0000{i}.parquet" for i in range(3)]
    assert pq.read_table(path).num_rows == 5


def test_outputs_that_cannot_be_are_refused_before_any_work(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    for name, draws, message in (
        ("a.txt", 0, "unknown suffix"),
        ("gone/a.fits", 0, "does not exist"),
        ("gone/folder", 0, "does not exist"),
        ("a.fits", 10, "Parquet only"),
        ("full", 0, "thesis.tex"),
    ):
        with pytest.raises(InputError, match=message):
            check_catalogue_output(tmp_path / name, draws)
