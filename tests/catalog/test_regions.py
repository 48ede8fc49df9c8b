from __future__ import annotations

import math
import re

import pytest
from astropy import units as u
from astropy.table import QTable

from deeplegato_pp.catalog.regions import write_regions
from deeplegato_pp.errors import ConfigError, InputError


@pytest.fixture
def table() -> QTable:
    return QTable(
        {
            "id": [7, 8, 9],
            "quality": ["good", "bad", "bad"],
            "x": [10.0, 3.5, math.nan] * u.pix,
            "y": [20.0, 4.5, 1.0] * u.pix,
            "ra": [150.1, 150.2, 150.3] * u.deg,
            "dec": [2.1, 2.2, 2.3] * u.deg,
            "effective_radius": [1.0, 0.5, 1.0] * u.arcsec,
            "effective_radius_pix": [4.0, 2.0, 4.0] * u.pix,
            "axis_ratio": [0.5, 1.0, 0.5],
            "position_angle": [30.0, 0.0, 0.0] * u.deg,
            "position_angle_sky": [40.0, math.nan, 0.0] * u.deg,
        }
    )


def test_pixels_count_from_one(table, tmp_path):
    assert write_regions(table, tmp_path / "r.reg") == 2
    lines = (tmp_path / "r.reg").read_text().splitlines()
    assert lines[2] == "image"
    expected = "ellipse(11.000,21.000,4,2,120.00) # color=green text={7} tag={good}"
    assert lines[3] == expected
    assert "color=red text={8}" in lines[4]


def test_on_the_sky(table, tmp_path):
    assert write_regions(table, tmp_path / "r.reg", "icrs") == 2
    lines = (tmp_path / "r.reg").read_text().splitlines()
    assert lines[2] == "icrs"
    assert lines[3].startswith('ellipse(150.1000000,2.1000000,1",0.5",130.00)')


def test_what_cannot_be_written_is_said(table, tmp_path):
    with pytest.raises(InputError, match=re.escape("unknown suffix .txt")):
        write_regions(table, tmp_path / "r.txt")
    with pytest.raises((InputError, ConfigError), match="system"):
        write_regions(table, tmp_path / "r.reg", "galactic")
    table.remove_column("ra")
    with pytest.raises(InputError, match="ra is missing"):
        write_regions(table, tmp_path / "r.reg", "icrs")
