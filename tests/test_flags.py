from pathlib import Path

import pytest

from deeplegato_pp.errors import RangeError
from deeplegato_pp.flags import Flag, flags_markdown

DOCS = Path(__file__).parents[1] / "docs" / "flags.md"


def test_every_flag_is_one_bit_and_says_what_it_means():
    assert [int(flag) for flag in Flag] == [1 << bit for bit in range(len(Flag))]
    for flag in Flag:
        assert flag.meaning
        assert flag.decision


def test_names_are_lower_case_and_ordered_by_bit():
    assert Flag.names(0) == []
    assert Flag.names(Flag.PADDED | Flag.NO_PSF) == ["no_psf", "padded"]
    assert Flag.names(int(Flag.TENSION)) == ["tension"]


def test_flags_add_up_as_integers():
    value = 0
    value |= Flag.NO_PSF
    value |= Flag.NO_PSF
    assert int(value) == 1
    assert Flag.NO_PSF in Flag(value)


def test_some_flags_are_taken_away_and_the_others_stay():
    everything = sum(int(flag) for flag in Flag)
    for flag in Flag:
        left = Flag.without(everything, flag)
        assert left == everything - int(flag)
        assert Flag.without(left, flag) == left


@pytest.mark.parametrize("value", [1 << 62, -1])
def test_unknown_bits_are_an_error(value):
    with pytest.raises(RangeError, match="known bits"):
        Flag.names(value)


def test_describe_explains_each_flag():
    lines = Flag.describe(Flag.NO_NOISE | Flag.CROPPED).splitlines()
    assert len(lines) == 2
    assert lines[0] == f"no_noise: {Flag.NO_NOISE.meaning}"


def test_the_docs_page_is_the_registry():
    assert DOCS.read_text(encoding="utf-8") == flags_markdown()
