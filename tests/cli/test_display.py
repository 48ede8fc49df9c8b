from __future__ import annotations

import pytest

from deeplegato_pp.cli.display import print_flags, value_and_error
from deeplegato_pp.flags import Flag


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


def test_flags_are_printed_unbroken_the_most_serious_first(capsys):
    print_flags([{"flags": int(Flag.PADDED | Flag.NO_PSF)}, {"flags": int(Flag.NOISE_OFF)}])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["noise_off", "no_psf", "padded"]
    assert "--noise-type" in lines[0]
    assert "--psf-fwhm" in lines[1]


def test_flags_are_printed_with_their_level_in_the_row(capsys):
    flags = int(Flag.POOR_FIT)
    print_flags([{"flags": flags, "method": "importance", "widths": "honest"}])
    assert capsys.readouterr().out.startswith("poor_fit (good)")
    print_flags([{"flags": flags, "method": "importance", "widths": "noise"}])
    assert capsys.readouterr().out.startswith("poor_fit (caution)")
