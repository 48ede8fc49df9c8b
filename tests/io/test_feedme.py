from __future__ import annotations

import re

import pytest

from deeplegato_pp.errors import FormatError
from deeplegato_pp.io.feedme import parse_feedme, read_feedme

TEXT = """
===============================================================================
# IMAGE and GALFIT CONTROL PARAMETERS
A) gal.fits[1]         # Input data image (FITS file)
C) none                # Sigma image name
D) psf.fits  kernel.fits  # Input PSF image and diffusion kernel
H) 1    93   2    90   # Image region to fit
K) 0.038  0.038        # Plate scale

# Object number: 1
 0) sersic                 #  Component type
 1) 48.5180  51.2800  1 0  #  Position x, y
 3) 20.0890     1          #  Integrated magnitude
10) -60.3690    0          #  Position angle
 F1) 0.2 45 1 1            #  Fourier mode
 Z) 0                      #  Leave in [1] or subtract [0]
 0) sky
 1) 1.39      -1
================================================================================
"""


def test_controls_and_components_are_read():
    feedme = parse_feedme(TEXT)
    assert feedme.word("A") == "gal.fits[1]"
    assert feedme.word("C") == ""
    assert feedme.word("D", 1) == "kernel.fits"
    assert feedme.numbers("H", 4) == (1, 93, 2, 90)
    assert feedme.numbers("J", 1) is None
    sersic, sky = feedme.components
    assert (sersic.kind, sersic.line) == ("sersic", 11)
    assert sersic.values == {"1": (48.518, 51.28), "3": (20.089,), "10": (-60.369,)}
    assert sersic.free == {"1": (True, False), "3": (True,), "10": (False,)}
    assert sersic.modifiers == ("F1",)
    assert (sky.kind, sky.values, sky.free) == ("sky", {"1": (1.39,)}, {"1": (False,)})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("A) gal.fits\n", "no component"),
        ("0) sersic\n3) 20.0\n", "line 2, 3) of the sersic"),
        ("0) sersic\n1) 4 5 1\n", "line 2, 1) of the sersic"),
        ("0) sersic\n3) bright 1\n", "line 2"),
        ("0) sersic\n3) 20.0 7\n", "line 2"),
        ("SIMPLE  =                    T", "line 1 is not GALFIT's"),
    ],
)
def test_what_is_not_understood_names_its_line(text, message):
    with pytest.raises(FormatError, match=re.escape(message)):
        parse_feedme(text)


def test_too_few_numbers_and_missing_parameters_are_refused():
    feedme = parse_feedme("H) 1 93\nK) small\n0) sersic\n3) 20 1\n")
    for letter, count in (("H", 4), ("K", 2)):
        with pytest.raises(FormatError, match=rf"line {letter}\) must begin with {count} numbers"):
            feedme.numbers(letter, count)
    with pytest.raises(FormatError, match=r"no parameter 4\)"):
        feedme.components[0].value("4", feedme.path)


def test_a_missing_file_is_said(tmp_path):
    with pytest.raises(FormatError, match="cannot be read"):
        read_feedme(tmp_path / "none.feedme")
