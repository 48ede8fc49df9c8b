from __future__ import annotations

import pytest
from astropy.table import Table

from deeplegato_pp.errors import InputError
from deeplegato_pp.view.marks import Marks, sidecar

NAMES = ["a", "b", "c, d"]


def test_marks_are_on_the_disk_at_once_and_read_again(tmp_path):
    path = sidecar(tmp_path / "field.parquet")
    marks = Marks(path, NAMES)
    marks.give(2, "bad")
    marks.give(0, "good")
    table = Table.read(path, format="ascii.ecsv")
    assert list(table["row"]) == [0, 2]
    assert list(table["name"]) == ["a", "c, d"]
    assert list(table["mark"]) == ["good", "bad"]
    again = Marks(path, NAMES)
    assert [again[i] for i in range(3)] == ["good", "", "bad"]
    again.give(0, "caution")
    again.give(2, "")
    assert [Marks(path, NAMES)[i] for i in range(3)] == ["caution", "", ""]
    again.give(0, "")
    assert len(Marks(path, NAMES)) == 0


def test_marks_of_another_catalogue_are_not_taken(tmp_path):
    path = tmp_path / "m.ecsv"
    Marks(path, NAMES).give(1, "good")
    with pytest.raises(InputError, match="row 1 is b, marked good"):
        Marks(path, ["a", "x", "y"])
    with pytest.raises(InputError, match="another catalogue"):
        Marks(path, ["a"])
    path.write_text("row name\n1 b\n")
    with pytest.raises(InputError, match="no table of marks"):
        Marks(path, NAMES)
    with pytest.raises(InputError, match="unknown suffix"):
        Marks(tmp_path / "m.csv", NAMES)
