import pytest
from astropy.io import fits

from deeplegato_pp.io.fits import cards_of
from deeplegato_pp.io.header_keywords import comment, header_number, header_text, number_with_unit


@pytest.mark.parametrize("value", [None, "", "n/a", float("nan"), True, False, float("inf")])
def test_what_is_no_number(value):
    assert header_number({"MAGZERO": value}, "MAGZERO") is None
    assert header_number({}, "MAGZERO") is None


def test_numbers_and_texts():
    assert header_number({"A": "25.5"}, "A") == 25.5
    assert header_text({"A": " SDSS "}, "A") == "SDSS"
    assert header_text({"A": 3}, "A") == ""
    assert number_with_unit({"A": "0.262 arcsec/pix"}, "A") == (0.262, "arcsec/pix")
    assert number_with_unit({"A": 0.2}, "A") == (0.2, "")
    assert number_with_unit({"A": "unknown"}, "A") is None


def test_cards_keep_comments_and_undefined_values_are_none():
    primary, image = fits.PrimaryHDU(), fits.ImageHDU()
    primary.header["ZP"] = (25.0, "of the telescope")
    primary.header["FILTER"] = ("r", "band")
    image.header["ZP"] = (27.0, "per second")
    image.header["EXPTIME"] = fits.card.Undefined()
    cards = cards_of(fits.HDUList([primary, image]), 1)
    assert (cards["ZP"], cards["FILTER"], cards["EXPTIME"]) == (27.0, "r", None)
    assert (comment(cards, "ZP"), comment(cards, "FILTER")) == ("per second", "band")
    assert comment(cards, "NOTHING") == comment({"ZP": 1}, "ZP") == ""
