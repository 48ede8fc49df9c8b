"""Every size that a user or a header can give is bounded, and the error says the bound."""

from __future__ import annotations

import bz2
import gzip
import re

import numpy as np
import pytest
from astropy.io import fits

from deeplegato_pp.catalog.segmentation import Detection
from deeplegato_pp.cli.app import main
from deeplegato_pp.cli.measuring import DRAWS_TOGETHER, Measuring
from deeplegato_pp.errors import FormatError, RangeError
from deeplegato_pp.io import fits as fits_io
from deeplegato_pp.observation.inputs import usable_psf

PSF = np.ones((3, 3))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: usable_psf(PSF, None, 200, "refuse"), r"psf_oversampling must lie in \[1, 32\]"),
        (lambda: usable_psf(None, 500.0, 1, "refuse"), r"psf_fwhm must lie in \[0.1, 100\] px"),
        (lambda: usable_psf(None, 0.001, 1, "refuse"), r"psf_fwhm must lie in \[0.1, 100\] px"),
        (
            lambda: usable_psf(np.ones((3, 2049)), None, 1, "refuse"),
            r"side must lie in \[1, 2047\]",
        ),
        (lambda: Detection(kernel=1e6), r"detect_kernel must lie in \[0.1, 64\] px"),
        (lambda: Detection(box=10**9), r"detect_box must lie in \[3, 2048\] px"),
    ],
)
def test_sizes_that_users_give(call, message):
    with pytest.raises(RangeError, match=message):
        call()


@pytest.mark.parametrize("command", ["predict", "catalog"])
def test_the_number_of_draws(command, capsys):
    assert main([command, "a.fits", "--samples", "1000000000000", "-o", "t.fits"]) == 2
    err = capsys.readouterr().err
    assert "--samples" in err
    assert re.search(r"less than or equal to 1|is not in the range 1<=x<=1", err)  # by typer
    assert err.count("\n") == 1


def test_many_draws_are_made_of_few_galaxies_at_a_time():
    assert Measuring(1000, 0).chunk == 64
    assert Measuring(DRAWS_TOGETHER, 0).chunk == 1


@pytest.mark.parametrize("packer", [gzip, bz2])
def test_files_that_unpack_to_very_much(tmp_path, monkeypatch, packer):
    monkeypatch.setattr(fits_io, "LARGEST_UNPACKED", 10**6)
    path = tmp_path / "bomb.fits.gz"
    path.write_bytes(packer.compress(bytes(2 * 10**6)))
    with pytest.raises(FormatError, match="unpacks to more than 1000000 bytes"):
        fits_io.read_image(path)


def test_images_that_are_large_in_their_header_only(tmp_path):
    hdu = fits.CompImageHDU(np.ones((64, 64), np.float32), compression_type="GZIP_1")
    hdu.writeto(tmp_path / "a.fits")
    content = (tmp_path / "a.fits").read_bytes()
    for name in (b"ZNAXIS1 ", b"ZNAXIS2 "):
        at = content.index(name)
        content = content[:at] + (name + b"=               100000").ljust(80) + content[at + 80 :]
    (tmp_path / "a.fits").write_bytes(content)
    with pytest.raises(FormatError, match="10000000000 pixels, expected at most 268435456"):
        fits_io.read_image(tmp_path / "a.fits")
