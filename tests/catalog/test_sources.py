from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.io import fits
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
        ({"id": [], "x": [], "y": []}, "no rows"),
        ({"x": ["left"], "y": [1.0]}, "must hold numbers, got 'left'"),
    ],
)
def test_wrong_columns_are_refused(columns, message):
    with pytest.raises(InputError, match=message):
        from_columns({k: np.array(v) for k, v in columns.items()}, "here")


@pytest.mark.parametrize("columns", [{"ra": [], "dec": [1.0, 2.0]}, {"x": 1.0, "y": [2.0]}])
def test_columns_have_one_value_per_row(columns):
    with pytest.raises(InputError, match="one value per row"):
        from_columns(columns, "the list")


def test_wrong_files_are_refused(tmp_path):
    with pytest.raises(InputError, match="unknown suffix"):
        read_sources(tmp_path / "list.doc")
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


GAIA = [2584290278794471936, 2584290038276303743, 2584288728310999297]


@pytest.mark.parametrize("kind", ["csv", "parquet", "ecsv", "fits", "vot"])
def test_long_ids_stay_digit_for_digit_where_one_is_missing(tmp_path, kind):
    path = tmp_path / f"list.{kind}"
    if kind == "csv":
        path.write_text(f"id,x,y\n{GAIA[0]},1,1\n,2,2\n{GAIA[2]},3,3\n")
    elif kind == "parquet":
        ids = pa.array([GAIA[0], None, GAIA[2]], pa.int64())
        pq.write_table(pa.table({"id": ids, "x": [1.0, 2, 3], "y": [1.0, 2, 3]}), path)
    else:
        ids = MaskedColumn(GAIA, mask=[0, 1, 0], dtype="i8")
        formats = {"ecsv": "ascii.ecsv", "fits": "fits", "vot": "votable"}
        Table({"id": ids, "x": [1.0, 2, 3], "y": [1.0, 2, 3]}).write(path, format=formats[kind])
    assert read_sources(path).ids.tolist() == [str(GAIA[0]), "row 1", str(GAIA[2])]


def test_ids_in_csv_are_whole_numbers_or_texts(tmp_path):
    path = tmp_path / "list.csv"
    for ids, expected in (
        (GAIA, GAIA),
        ([2**63, 1, 2], [str(2**63), "1", "2"]),
        (["007", "1", "2"], ["007", "1", "2"]),
        (["1.5", "b", "2"], ["1.5", "b", "2"]),
    ):
        path.write_text("id,x,y\n" + "".join(f"{i},1,1\n" for i in ids))
        assert read_sources(path).ids.tolist() == expected
    unsigned = {"id": np.array([2**63 + 5], np.uint64), "x": [1.0], "y": [1.0]}
    assert from_columns(unsigned, "here").ids.tolist() == [str(2**63 + 5)]


@pytest.mark.parametrize(
    ("content", "encoding"),
    [
        ("id,x,y\nP\u00e9rez 1,50,40\n", "utf-8"),
        ("id,x,y\nP\u00e9rez 1,50,40\n", "utf-8-sig"),
        ("id,x,y\nP\u00e9rez 1,50,40\n", "latin-1"),
        ("id;x;y\nP\u00e9rez 1;50;40\n", "utf-8"),
        ("id\tx\ty\nP\u00e9rez 1\t50\t40\n", "utf-8"),
        ("id;x;y\nP\u00e9rez 1;50,0;40,0\n", "utf-8"),
        ("# made by me\n\nid, x, y\nP\u00e9rez 1, 50, 40\n", "utf-8"),
    ],
)
def test_csv_as_people_write_it(tmp_path, content, encoding):
    (tmp_path / "list.csv").write_text(content, encoding=encoding)
    sources = read_sources(tmp_path / "list.csv")
    assert sources.ids.tolist() == ["P\u00e9rez 1"]
    assert (sources.x.tolist(), sources.y.tolist()) == ([50.0], [40.0])


def test_pixels_of_sextractor_count_from_one_and_that_is_said(tmp_path, caplog):
    head = "#   1 NUMBER\n#   2 X_IMAGE\n#   3 Y_IMAGE\n"
    (tmp_path / "sex.cat").write_text(head + " 1 101.0 51.0\n 2 301.0 11.0\n")
    sources = read_sources(tmp_path / "sex.cat")
    assert (sources.x.tolist(), sources.y.tolist()) == ([100.0, 300.0], [50.0, 10.0])
    assert "count from 1" in caplog.text
    both = from_columns({"x": [5.0], "y": [6.0], "X_IMAGE": [6.0], "Y_IMAGE": [7.0]}, "here")
    assert both.x.tolist() == [5.0]
    windowed = from_columns({"ALPHAWIN_J2000": [10.0], "DELTAWIN_J2000": [1.0]}, "here")
    assert windowed.ra.tolist() == [10.0]


def test_the_table_with_positions_is_found_among_several(tmp_path):
    head = fits.BinTableHDU.from_columns([fits.Column("Field Header Card", "8A", array=["x"])])
    table = fits.table_to_hdu(Table({"NUMBER": [4], "X_IMAGE": [3.0], "Y_IMAGE": [2.0]}))
    fits.HDUList([fits.PrimaryHDU(), head, table]).writeto(tmp_path / "ldac.fits")
    sources = read_sources(tmp_path / "ldac.fits")
    assert (sources.ids.tolist(), sources.x.tolist()) == ([4], [2.0])
    fits.PrimaryHDU(np.zeros((3, 3))).writeto(tmp_path / "image.fits")
    with pytest.raises(FormatError, match="no table in the file"):
        read_sources(tmp_path / "image.fits")


def test_positions_in_other_frames_and_forms(caplog):
    sky = SkyCoord([10.0, 11.0], [1.0, 2.0], unit="deg")
    galactic = from_columns({"glon": sky.galactic.l.deg, "glat": sky.galactic.b.deg}, "here")
    assert galactic.ra.tolist() == pytest.approx([10.0, 11.0])
    old = {"ALPHA_B1950": sky.fk4.ra.deg, "DELTA_B1950": sky.fk4.dec.deg}
    assert from_columns(old, "here").dec.tolist() == pytest.approx([1.0, 2.0], abs=1e-6)
    texts = {"ra": np.array(["00:40:00.0", "00:44:00"]), "dec": np.array(["+01:00:00", "2:0:0"])}
    assert from_columns(texts, "here").ra.tolist() == pytest.approx([10.0, 11.0])
    assert from_columns(texts, "here").dec.tolist() == pytest.approx([1.0, 2.0])
    from_columns({"ra": [2.61, 2.62], "dec": [0.04, 0.05]}, "here")
    assert "radians" in caplog.text


def test_a_numeric_psf_column_is_no_file(caplog):
    sources = from_columns({"x": [1.0], "y": [1.0], "psf": np.array([0.8])}, "here")
    assert sources.psf is None
    assert "instead of file names" in caplog.text
