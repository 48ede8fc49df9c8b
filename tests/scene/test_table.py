"""Tables of parameters."""

from __future__ import annotations

import pytest

from deeplegato_pp.errors import RangeError
from deeplegato_pp.scene.parameters import NAMES
from deeplegato_pp.scene.table import POINT, SERSIC


def test_tables_join_in_order_and_keep_units():
    both = POINT + SERSIC.prefixed("host")
    assert both.names == (*POINT.names, *(f"host_{name}" for name in NAMES))
    assert both.units[both.index("host_effective_radius")] == "arcsec"


def test_a_part_keeps_the_tables_order():
    assert SERSIC.only(["center_y", "magnitude"]).names == ("magnitude", "center_y")


def test_wrong_names_are_told():
    with pytest.raises(RangeError, match="center_x, center_y, magnitude twice"):
        SERSIC + POINT
    with pytest.raises(RangeError, match="unknown parameter 'size', expected one of magnitude"):
        SERSIC.index("size")
