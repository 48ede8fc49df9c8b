"""Catalogues of several bands: one mosaic each, one row per source."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pyarrow.parquet as pq
import pytest
from astropy.io import fits
from astropy.table import QTable
from astropy.wcs import WCS

import deeplegato_pp.inference.predictor as predictor_module
from band_galaxies import SIZE, band_image, small_model
from deeplegato_pp import Predictor
from deeplegato_pp.catalog import catalog
from deeplegato_pp.catalog.options import Options
from deeplegato_pp.cli.app import main
from deeplegato_pp.errors import ConfigError, InputError
from deeplegato_pp.inference.refine.policy import Refining
from deeplegato_pp.models import storage
from deeplegato_pp.observation.bands import Bands

SIDE = 120
CORNERS = ((6, 8), (64, 60))
"""Where stamps with a galaxy lie in the first mosaic: column and row of their first pixel."""

SHIFT = 3
"""Columns by which the second mosaic's pixels are shifted."""


def mosaic(magnitude: float, seed: int, shift: int = 0) -> tuple[np.ndarray, WCS]:
    """Two galaxies and noise; the WCS puts both bands' galaxies at the same place of the sky."""
    image = np.random.default_rng(seed).normal(size=(SIDE, SIDE))
    for i, (x, y) in enumerate(CORNERS):
        stamp, _ = band_image(magnitude, seed=seed + 10 + i)
        image[y : y + SIZE, x + shift : x + shift + SIZE] = stamp
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = ["RA---TAN", "DEC--TAN"]
    wcs.wcs.crval = [150.0, 2.0]
    wcs.wcs.crpix = [60.0 + shift, 60.0]
    wcs.wcs.cdelt = [-0.25 / 3600, 0.25 / 3600]
    return image.astype(np.float32), wcs


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("bands")
    for band, magnitude, seed, shift in (("g", 20.5, 1, 0), ("r", 19.9, 2, SHIFT)):
        image, wcs = mosaic(magnitude, seed, shift)
        fits.PrimaryHDU(image, wcs.to_header()).writeto(path / f"{band}.fits")
    _, psf = band_image(20.0)
    fits.PrimaryHDU(psf).writeto(path / "psf.fits")
    middle = (SIZE - 1) / 2
    rows = [f"{i},{x + middle},{y + middle}" for i, (x, y) in enumerate(CORNERS)]
    rows.append(f"2,{SIDE - 1.2},30")  # beyond the second image's right edge
    (path / "list.csv").write_text("\n".join(["id,x,y", *rows]) + "\n")
    return path


@pytest.fixture
def _network(monkeypatch):
    monkeypatch.setattr(storage, "find", lambda name: name or "default")
    monkeypatch.setattr(
        predictor_module.Predictor,
        "from_pretrained",
        classmethod(lambda cls, *a, **k: cls(small_model(), "cpu")),
    )


def call(folder, *more: str) -> list[str]:
    images = [str(folder / "g.fits"), str(folder / "r.fits")]
    given = ["--sources", str(folder / "list.csv"), "--psf", str(folder / "psf.fits")]
    zero_points = ["--zero-point", "30.5", "--zero-point", "30.5", "--noise", "1"]
    return ["catalog", *images, *given, *zero_points, *more]


@pytest.mark.usefixtures("_network")
def test_a_row_per_source_with_columns_per_band(folder, capsys):
    output = folder / "out.parquet"
    assert main(call(folder, "--bands", "g,r", "--refine", "-o", str(output))) == 0
    rows = pq.read_table(output).to_pylist()
    assert [row["id"] for row in rows] == [0, 1, 2]
    for row, (x, y) in zip(rows, CORNERS, strict=False):
        assert row["x"] == pytest.approx(x + 23.5 + 0.4, abs=0.2)
        assert row["y"] == pytest.approx(y + 23.5 - 0.3, abs=0.2)
        assert row["image"] == "g.fits"
        assert row["bands"] == "g,r"
        assert abs(row["g_minus_r"] - 0.6) < 5 * row["g_minus_r_std"]
        assert row["magnitude"] == pytest.approx(row["magnitude_g"])
        assert row["chi2_r"] < 1.2
        assert "undetected" not in row["flag_names_r"]
        assert (row["refined"], row["group_size"]) == (1, 1)
    assert "effective_radius_r" not in rows[0]
    assert "no band but g: r is left out: the source lies outside its image" in rows[2]["reason"]
    fields = pq.read_schema(output)
    assert fields.field("g_minus_r_std").metadata[b"unit"] == b"mag"
    assert b"in r" in fields.field("magnitude_r").metadata[b"description"]


def test_in_memory(folder):
    images = tuple(mosaic(m, seed)[0] for m, seed in ((20.5, 1), (19.9, 2)))
    _, psf = band_image(20.0)
    rows = catalog(
        Predictor(small_model(), "cpu"),
        images,
        {"id": [7], "x": [CORNERS[0][0] + 23.5], "y": [CORNERS[0][1] + 23.5]},
        refine="exact",
        bands=Bands(("g", "r"), "free"),
        psf=psf,
        noise=1.0,
        pixel_scale=0.25,
        zero_point=(30.5, 30.5),
        covariance=True,
    )
    table = rows.to_table()
    cov = table["cov_magnitude_effective_radius"][0]
    assert (
        0
        < abs(cov.to_value("mag arcsec"))
        < (table["magnitude_std"][0] * table["effective_radius_std"][0]).to_value("mag arcsec")
    )
    assert isinstance(table, QTable)
    assert str(table["effective_radius_r"].unit) == "arcsec"
    assert abs(table["magnitude_r"][0].value - 19.9) < 5 * table["magnitude_r_std"][0].value
    assert "without WCS" in table["notes"][0]


@pytest.mark.usefixtures("_network")
@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--bands", "g,r,i", "--refine"], "3 bands (g, r, i) need one file each, got 2"),
        (["--bands", "g,r"], "--no-refine does not go with --bands"),
        (["--bands", "g,r", "--refine", "--refine-rule", "auto"], "the rule auto do not go with"),
        (["--bands", "g,r", "--refine", "--scene", "auto"], "the scene auto do not go with"),
        (["--bands", "g,r", "--refine", "--neighbours", "fit"], "neighbours that are fitted"),
        (["--bands", "g,r", "--refine", "--model-image", "m.fits"], "drawn of one band"),
        (["--band-structure", "free"], "belongs to several bands"),
    ],
)
def test_what_does_not_go_with_bands(folder, capsys, more, message):
    assert main(call(folder, "-o", str(folder / "no.parquet"), *more)) == 2
    assert message in capsys.readouterr().err


def test_the_configuration_names_the_bands():
    options = Options(refining=Refining(), bands=Bands(("g", "r")))
    assert not options.fits_neighbours
    kept = json.loads(json.dumps(asdict(options)))["bands"]
    assert kept == {"names": ["g", "r"], "structure": "shared", "wavelengths": None}
    with pytest.raises(ConfigError, match="Add refining"):
        Options(bands=Bands(("g", "r")))
    with pytest.raises(InputError, match="at least two"):
        Bands(("g",))
