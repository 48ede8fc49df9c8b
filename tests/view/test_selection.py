from __future__ import annotations

import pytest

from deeplegato_pp.errors import InputError
from deeplegato_pp.report.rows import Rows
from deeplegato_pp.view.selection import fulfil, select
from result_tables import make_table

ALL = ("good", "caution", "bad")


@pytest.fixture(scope="module")
def rows():
    return Rows(make_table(6))


def test_conditions(rows):
    assert fulfil(rows, "").all()
    # The last galaxy was not measured: an unknown number fulfils nothing.
    assert fulfil(rows, "magnitude > 21.15").tolist() == [False, False, True, True, True, False]
    assert fulfil(rows, "magnitude != 21").tolist() == [False, True, True, True, True, False]
    both = fulfil(rows, "magnitude >= 2.11e1 and magnitude<21.25")
    assert both.tolist() == [False, True, True, False, False, False]
    assert fulfil(rows, "position_angle > -.5, center_y = -1").sum() == 5


@pytest.mark.parametrize("text", ["magnitude >", "magnitude ~ 3", "name > 3", "nonsense > 3"])
def test_what_is_no_condition_is_named(rows, text):
    with pytest.raises(InputError, match=text):
        fulfil(rows, text)


def test_filters_act_together(rows):
    assert select(rows, ALL).tolist() == [0, 1, 2, 3, 4, 5]
    assert select(rows, ["good"]).tolist() == [0, 1, 2, 3]
    assert select(rows, ALL, flag="poor_fit").tolist() == [4]
    assert select(rows, ALL, name="<G3").tolist() == [3]
    assert select(rows, ["good"], where="magnitude > 21.15").tolist() == [2, 3]
    assert select(rows, []).tolist() == []
