from __future__ import annotations

import numpy as np
import pytest
from astropy.io import fits

pytest.importorskip("photutils")
pytest.importorskip("skimage")

from deeplegato_pp.catalog import segmentation as module
from deeplegato_pp.catalog.mosaics import Mosaic, array_plane
from deeplegato_pp.catalog.segmentation import Detection, detect, tiles
from deeplegato_pp.errors import RangeError
from deeplegato_pp.io.large_fits import fits_canvas
from small_sky import POSITIONS, SIDE, make_sky

IMAGE = make_sky().image + 30.0


def find(tmp_path, name="a"):
    paths = tmp_path / f"{name}-seg.fits", tmp_path / f"{name}-sky.fits"
    mosaic = Mosaic("image", array_plane(IMAGE, "image"))
    return detect(mosaic, Detection(threshold=3.0, box=50), *paths), *paths


def test_the_galaxies_are_found_with_their_pixels_and_the_background(tmp_path):
    sources, segmentation, background = find(tmp_path)
    found = np.stack([sources.x, sources.y], 1)
    for i, place in enumerate(POSITIONS):
        nearest = np.hypot(*(found - place).T)
        assert nearest.min() < 1.0, i
        x, y = np.rint(place).astype(int)
        assert fits.getdata(segmentation)[y, x] == sources.ids[nearest.argmin()]
    assert len(sources) == len(POSITIONS)
    assert np.median(fits.getdata(background)) == pytest.approx(30.0, abs=0.2)


def test_blended_sources_are_told_apart(tmp_path):
    rows, columns = np.indices((60, 60))
    image = np.random.default_rng(0).standard_normal((60, 60))
    for x in (24.0, 36.0):
        image += 200 * np.exp(-0.5 * ((columns - x) ** 2 + (rows - 30.0) ** 2) / 9.0)
    mosaic = Mosaic("pair", array_plane(image, "image"))
    for contrast, number in ((0.005, 2), (1.0, 1)):
        how = Detection(threshold=3.0, box=30, contrast=contrast)
        assert len(detect(mosaic, how, tmp_path / f"{number}.fits")) == number


def test_a_masked_core_does_not_shred_its_source(tmp_path):
    rows, columns = np.indices((120, 120))
    radius = np.hypot(columns - 58.3, rows - 61.8)
    image = 300.0 * np.exp(-radius / 6.0) + np.random.default_rng(0).standard_normal((120, 120))
    mask = (image > 80.0) | (columns == 56)
    mosaic = Mosaic("saturated", array_plane(image, "image"), mask=array_plane(mask, "mask"))
    sources = detect(mosaic, Detection(box=40), tmp_path / "segments.fits")
    assert len(sources) == 1
    assert np.hypot(sources.x[0] - 58.3, sources.y[0] - 61.8) < 0.5
    segments = fits.getdata(tmp_path / "segments.fits")
    assert segments[62, 58] == 1


def test_seams_between_tiles_do_not_show(tmp_path, monkeypatch):
    whole, segmentation, _ = find(tmp_path)
    monkeypatch.setattr(
        module, "tiles", lambda shape: tiles(shape, size=100, overlap=60)
    )  # a seam at 200 px cuts the second galaxy
    cut, again, _ = find(tmp_path, "b")
    for x, y in zip(whole.x, whole.y, strict=True):
        assert np.sum(np.hypot(cut.x - x, cut.y - y) < 1.0) == 1
    row, column = 76, 201
    areas = [np.sum(d == d[row, column]) for d in map(fits.getdata, (segmentation, again))]
    assert areas[1] == pytest.approx(areas[0], rel=0.15)


def test_tiles_cover_the_image_once():
    covered = np.zeros((SIDE, 70), dtype=int)
    for tile in tiles(covered.shape, size=128, overlap=20):
        covered[tile.y0 : tile.y1, tile.x0 : tile.x1] += 1
        assert tile.bottom <= tile.y0 < tile.y1 <= tile.top
    assert (covered == 1).all()


def test_thresholds_must_be_positive():
    with pytest.raises(RangeError, match="detect_threshold"):
        Detection(threshold=0.0)


def test_an_image_is_written_whole_or_not_at_all(tmp_path):
    with fits_canvas(tmp_path / "a.fits", (30, 50), "float32", {"BUNIT": "nJy"}) as pixels:
        pixels[3, 4] = 2.5
    with fits.open(tmp_path / "a.fits") as hdus:
        hdus.verify("exception")
        assert hdus[0].data[3, 4] == 2.5
        assert hdus[0].header["BUNIT"] == "nJy"
    with pytest.raises(KeyError), fits_canvas(tmp_path / "b.fits", (3, 3), "int32"):
        raise KeyError
    assert [p.name for p in tmp_path.iterdir()] == ["a.fits"]
