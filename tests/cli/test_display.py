from __future__ import annotations

import pytest

from deeplegato_pp.cli.display import value_and_error


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (20.12345, 0.0123, "20.123 ± 0.012"),
        (1.0, 0.5, "1.00 ± 0.50"),
        (4321.0, 150.0, "4321 ± 150"),
        (3.0, 0.0, "3 ± 0"),
        (None, None, "-"),
        (2.0, None, "-"),
    ],
)
def test_value_and_error(value, error, text):
    assert value_and_error(value, error) == text
