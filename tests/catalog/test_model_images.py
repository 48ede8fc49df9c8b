from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits

from deeplegato_pp.catalog.cutouts import open_images
from deeplegato_pp.catalog.inputs import Inputs
from deeplegato_pp.catalog.model_images import write_images
from fake_model import truth_image
from result_tables import make_scene_table


def test_each_source_is_drawn_as_the_scene_that_won(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fits.writeto("g.fits", truth_image().numpy())
    table = make_scene_table()
    table["ra"], table["dec"] = np.full(4, np.nan), np.full(4, np.nan)
    opened = open_images(Inputs(images=("g.fits",), psf_fwhm=3.0))
    images = []
    for row in range(3):
        assert write_images(opened, table[row : row + 1], tmp_path / "m.fits", None) == 1
        images.append(fits.getdata("m.fits").astype(float))
    assert write_images(opened, table, tmp_path / "all.fits", tmp_path / "rest.fits") == 3
    whole = fits.getdata("all.fits")
    np.testing.assert_allclose(whole, sum(images), atol=1e-4)
    rest = fits.getdata("g.fits") - fits.getdata("rest.fits")
    np.testing.assert_allclose(rest, whole, atol=1e-4)
    plain = table[1:3].copy()
    plain["best_scene"] = "sersic"
    for row, image in enumerate(images[1:]):
        write_images(opened, plain[row : row + 1], tmp_path / "m.fits", None)
        single = fits.getdata("m.fits").astype(float)
        assert image.sum() == pytest.approx(single.sum(), rel=0.03)
        assert image.max() > 1.2 * single.max()
