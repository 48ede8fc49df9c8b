from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.table import MaskedColumn, QTable, Table

from deeplegato_pp.catalog.sources import as_sources, from_columns, read_sources
from deeplegato_pp.errors import FormatError, InputError

COLUMNS = {"id": [7, 8, 9], "ra": [150.0, 150.1, np.nan], "dec": [2.0, 2.1, 2.2]}


@pytest.fixture(params=["t.fits", "t.ecsv", "t.csv", "t.parquet", "t.vot"])
def path(request, tmp_path):
    """The same list in every format."""
    path = tmp_path / request.param
    if path.suffix == ".parquet":
        pq.write_table(pa.table(COLUMNS), path)
    else:
        kind = {".fits": "fits", ".ecsv": "ascii.ecsv", ".csv": "ascii.csv", ".vot": "votable"}
        Table(COLUMNS).write(path, format=kind[path.suffix])
    return path


def test_every_format_holds_the_same_list(path):
    sources = read_sources(path)
    assert sources.ids.tolist() == [7, 8, 9]
    np.testing.assert_array_equal(sources.ra, COLUMNS["ra"])
    np.testing.assert_array_equal(sources.dec, COLUMNS["dec"])
    assert np.isnan(sources.x).all()


def test_texts_missing_ids_and_missing_numbers():
    table = Table({"ID": MaskedColumn(["a", "b", "c"], mask=[False, True, False])})
    table["X"] = MaskedColumn([1.0, 2.0, 3.0], mask=[False, False, True])
    table["Y"] = [1, 2, 3]
    sources = as_sources(table)
    assert sources.ids.tolist() == ["a", "row 1", "c"]
    assert np.isnan(sources.x[2])


def test_without_ids_rows_are_numbered_and_angles_are_degrees():
    table = QTable({"ra": [10.0] * u.hourangle, "dec": [60.0] * u.arcmin})
    sources = as_sources(table)
    assert sources.ids.tolist() == [0]
    assert sources.ra[0] == pytest.approx(150.0)
    assert sources.dec[0] == pytest.approx(1.0)


def test_what_photutils_and_pandas_give():
    sky = SkyCoord([10.0, 11.0], [1.0, 2.0], unit="deg")
    table = QTable({"label": [1, 2], "x_centroid": [3.0, 4.0], "y_centroid": [5.0, 6.0]})
    table["sky_centroid"] = sky
    for given in (table, table["label", "x_centroid", "y_centroid"].to_pandas()):
        sources = as_sources(given)
        assert sources.ids.tolist() == [1, 2]
        assert sources.x.tolist() == [3.0, 4.0]
    assert as_sources(table).ra.tolist() == pytest.approx([10.0, 11.0])


def test_duplicates_are_marked_by_id_and_by_place():
    columns = {
        "id": [1, 1, 2, 3, 4],
        "x": [0.0, 50.0, 9.0, 9.01, np.nan],
        "y": [0.0] * 4 + [np.nan],
    }
    assert from_columns(columns, "here").duplicate.tolist() == [True, True, True, True, False]


def test_seeds_know_the_source_and_not_its_row():
    one = from_columns({"id": [1, 2], "x": [3.0, 4.0], "y": [5.0, 6.0]}, "here")
    other = from_columns({"id": [2, 1], "x": [4.0, 3.0], "y": [6.0, 5.0]}, "here")
    assert one.seed(0, 0) == other.seed(1, 0)
    assert len({one.seed(0, 0), one.seed(1, 0), one.seed(0, 1)}) == 3
    assert one.digest() != other.digest()


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"id": [1], "x": [1.0]}, "expected columns x, y"),
        ({"X_IMAGE": [1.0], "Y_IMAGE": [1.0]}, "counts from 1"),
        ({"id": [], "x": [], "y": []}, "no rows"),
        ({"x": ["left"], "y": [1.0]}, "must hold numbers, got 'left'"),
    ],
)
def test_wrong_columns_are_refused(columns, message):
    with pytest.raises(InputError, match=message):
        from_columns({k: np.array(v) for k, v in columns.items()}, "here")


def test_wrong_files_are_refused(tmp_path):
    with pytest.raises(InputError, match="unknown suffix"):
        read_sources(tmp_path / "list.txt")
    with pytest.raises(FormatError, match="no such file"):
        read_sources(tmp_path / "list.csv")
    (tmp_path / "list.fits").write_bytes(b"not a table")
    with pytest.raises(FormatError, match="cannot be read as fits"):
        read_sources(tmp_path / "list.fits")


def test_files_are_found_from_the_folder_of_the_list(tmp_path):
    (tmp_path / "list.csv").write_text("id,file,psf\na,stamps/a.fits,\nb,/b.fits,p.fits\n")
    sources = read_sources(tmp_path / "list.csv")
    assert sources.file.tolist() == [str(tmp_path / "stamps/a.fits"), "/b.fits"]
    assert sources.psf.tolist() == ["", str(tmp_path / "p.fits")]
