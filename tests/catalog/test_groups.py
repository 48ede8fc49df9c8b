"""Sources that overlap: who is in a group, and what a catalogue makes of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from deeplegato_pp.catalog import catalog
from deeplegato_pp.catalog.chunks import Chunk
from deeplegato_pp.catalog.cutouts import Cutout
from deeplegato_pp.catalog.grouping import Found, groups_of, neighbours_from
from deeplegato_pp.catalog.groups import Crowd, Ellipse, grow, isophote
from deeplegato_pp.catalog.options import Options
from deeplegato_pp.catalog.positions import Position
from deeplegato_pp.catalog.sources import as_sources
from deeplegato_pp.catalog.strays import leaves_segment, ran_away
from deeplegato_pp.data import SersicSimulator, generate_sersic_profile
from deeplegato_pp.errors import ConfigError, InputError
from deeplegato_pp.observation.effective_psf import moffat_psf
from deeplegato_pp.observation.observation import Observation
from fake_model import TRUTH, truth_image
from small_sky import load_fake, same_values

ROUND = (22.0, 0.75, 1.0, 1.0, 0.0, 0.0, 0.0)


def at(x: float, y: float = 0.0, radius: float = 3.0, image: int = 0) -> Ellipse:
    return Ellipse(image, x, y, ROUND, radius, 2.0, 0.0)


def test_an_ellipse_reaches_along_its_axes_and_no_nearer_than_the_psf():
    upright = Ellipse(0, 0.0, 0.0, (22.0, 0.75, 1.0, 0.5, 0.0, 0.0, 0.0), 3.0, 2.0, 0.0)
    assert upright.towards(0.0, 1.0) == pytest.approx(6.0)
    assert upright.towards(-1.0, 0.0) == pytest.approx(3.0)
    assert replace(upright, fwhm=8.0).towards(1.0, 0.0) == pytest.approx(5.0)


def test_an_isophote_is_where_half_a_sigma_is_left():
    radius, index, q, flux = 4.0, 2.0, 0.6, 3000.0
    extent = isophote(flux, radius, index, q)
    assert 1.0 < extent < 4.0
    columns = [torch.tensor([v]).double() for v in (flux, radius, index, q, 90.0)]
    along = torch.tensor([[extent * radius]]).double()  # the major axis lies along x
    brightness = generate_sersic_profile(*columns, along, 0 * along)
    assert float(brightness) == pytest.approx(0.5, rel=0.02)
    assert isophote(10.0, radius, index, q) == 1.0
    assert isophote(1e7, radius, 6.0, q) == 4.0


def test_a_chain_is_one_group_for_each_of_its_members():
    chain = [at(0.0), at(10.0), at(20.0), at(40.0)]
    members = []
    for i, own in enumerate(chain):
        others = chain[:i] + chain[i + 1 :]
        members.append({own.x} | {others[k].x for k in grow(own, others).others})
    assert members == [{0.0, 10.0, 20.0}] * 3 + [{40.0}]


def test_a_crowd_is_cut_at_its_weakest_links_and_says_so():
    others = [at(2.0), at(-3.0), at(0.0, 4.0), at(0.0, -5.0), at(6.0), at(11.9), at(30.0)]
    found = grow(at(0.0), others)
    assert found.others == (0, 1, 2, 3) or len(found.others) == 4
    assert 6 not in found.others
    assert found.cut == 2


def test_one_place_is_one_source_and_other_images_are_elsewhere():
    others = [at(0.3), at(4.0), at(4.2), at(5.0, image=1)]
    assert grow(at(0.0), others).others == (1,)
    assert grow(at(0.0), others).cut == 0


def test_who_lies_near_comes_from_pixels_or_the_sky():
    x = np.array([0.0, 50.0, 500.0, np.nan, np.nan])
    ra = np.array([np.nan, np.nan, np.nan, 10.0, 10.0])
    dec = np.array([np.nan, np.nan, np.nan, 0.0, 10.0 / 3600.0])
    sources = as_sources({"id": np.arange(5), "x": x, "y": 0 * x, "ra": ra, "dec": dec})
    crowd = Crowd(sources, 0.2)
    assert crowd.around(np.array([0])).ids.tolist() == [1]
    assert crowd.around(np.array([0, 1])) is None
    assert crowd.around(np.array([2])) is None
    assert crowd.around(np.array([3])).ids.tolist() == [4]


class Known(Found):
    """Sources whose ellipses are given."""

    def __init__(self, ids, places):
        sources = as_sources({"id": ids, "x": [p[0] for p in places], "y": [p[1] for p in places]})
        observation = Observation.from_array(np.zeros((128, 128)), psf_fwhm=3.0, noise=1.0)
        cutouts = [Cutout(Position(0, *p), observation, "", round(p[0]) - 63, round(p[1]) - 63)
                   for p in places]  # fmt: skip
        super().__init__(sources, cutouts, [])

    def ellipses(self):
        return [at(c.position.x, c.position.y) for c in self.cutouts]


def test_a_group_does_not_depend_on_the_chunk():
    places = [(100.0, 100.0), (108.0, 100.0), (100.0, 109.0), (150.0, 100.0)]

    def group(inside, outside):
        own = Known(inside, [places[i] for i in inside])
        around = Known(outside, [places[i] for i in outside]) if outside else None
        found, candidates = groups_of(own, around)[0]
        return [(candidates[k].x, candidates[k].y) for k in found.others]

    whole = group([0, 1, 2, 3], [])
    assert sorted(whole) == [(100.0, 109.0), (108.0, 100.0)]
    assert group([0], [3, 2, 1]) == group([0, 2], [1, 3]) == whole


def test_neighbours_stand_where_they_are_listed_on_the_cutout():
    own = Known([0], [(100.3, 99.8)])
    found = neighbours_from(own.cutouts[0], [at(106.0, 98.0)])
    x, y = 37 + 63.5, 37 + 63.5  # the cutout's middle
    assert found.place == pytest.approx((100.3 - x, 99.8 - y))
    assert found.values[0, 5:].tolist() == pytest.approx([106.0 - x, 98.0 - y])


def test_the_rest_of_a_chunk_is_around_its_parts():
    chunk = Chunk(3, as_sources({"id": [1, 2, 3], "x": [1.0, 2.0, 3.0], "y": [0.0] * 3}))
    part = chunk.part([1])
    assert part.sources.ids.tolist() == [2]
    assert part.around.ids.tolist() == [1, 3]
    assert part.part([0]).around.ids.tolist() == [1, 3]


@pytest.fixture(scope="module")
def blend():
    """Two galaxies 5 px apart on a small mosaic, one of them a half as bright as the other."""
    psf, _ = moffat_psf(3.0)
    image = np.random.default_rng(2).standard_normal((160, 160))
    places = [(78.0, 80.0), (83.0, 80.0)]
    for magnitude, (x, y) in zip((21.0, 21.7), places, strict=True):
        params = TRUTH.clone()
        params[0], params[1], params[2] = magnitude, 0.75, 1.2
        params[5:] = torch.tensor([x - 79.5, y - 79.5])
        image += SersicSimulator(160).render(params[None], torch.from_numpy(psf))[0].numpy()
    listed = {"id": [1, 2], "x": [p[0] for p in places], "y": [p[1] for p in places]}
    return image, psf, listed


def rows_of(blend, **options):
    image, psf, listed = blend
    given = {"psf": psf, "noise": 1.0, "pixel_scale": 0.25, "zero_point": 30.5, "samples": 200}
    return list(catalog(load_fake(), image, listed, **(given | options)))


def test_sources_that_touch_are_fitted_together_in_any_chunk(blend):
    together = rows_of(blend, refine="laplace", widths="noise")
    for row, truth in zip(together, (21.0, 21.7), strict=True):
        assert row["group_size"] == 2
        assert "fitted_together" in row["flag_names"]
        assert "same_object" not in row["flag_names"]
        assert abs(row["magnitude"] - truth) < 4 * row["magnitude_std"] < 0.5
    for row, other in zip(rows_of(blend, refine="laplace", widths="noise", chunk=1), together,
                          strict=True):  # fmt: skip
        same_values(row, other)


def test_kept_neighbours_are_flagged(blend):
    kept = rows_of(blend, neighbours="keep")
    assert [row["group_size"] for row in kept] == [1, 1]
    assert all("same_object" in row["flag_names"] for row in kept)
    assert all(row["quality"] != "good" for row in kept)


def test_segments_of_a_group_are_seen_and_those_of_others_masked(blend):
    segments = np.zeros((160, 160), dtype=int)
    segments[70:90, 70:81], segments[70:90, 81:92], segments[100:104, 70:75] = 1, 2, 3
    (row, _) = rows_of(blend, refine="laplace", widths="noise", segmentation=segments)
    assert row["group_size"] == 2
    assert "neighbours_masked" in row["flag_names"]  # the third
    assert abs(row["magnitude"] - 21.0) < 4 * row["magnitude_std"]


def test_what_cannot_be_done_with_neighbours_is_refused(blend):
    with pytest.raises(ConfigError, match="nothing is refined"):
        rows_of(blend, neighbours="fit")
    with pytest.raises(InputError, match="no segmentation was given"):
        rows_of(blend, neighbours="mask")
    with pytest.raises(InputError, match="neighbours"):
        Options(neighbours="swap")


@pytest.fixture(scope="module")
def single():
    """A posterior of one galaxy with a centre at (0.5, -1) px and R_e of 4 px."""
    psf, _ = moffat_psf(3.0)
    image = truth_image(64).numpy()
    seen = Observation.from_array(image, psf, 1.0, pixel_scale=0.25, zero_point=30.5)
    return load_fake().posterior([seen], 100, widths="noise")


def cutout_with(rows: slice, columns: slice) -> Cutout:
    segment = np.zeros((64, 64), dtype=bool)
    segment[rows, columns] = True
    return Cutout(Position(0, 32.0, 31.0), None, "", 0, 0, segment)


def test_a_fit_belongs_to_its_segment(single):
    assert leaves_segment(single, cutout_with(slice(28, 34), slice(29, 36))) == ""
    assert "off the source's segment" in leaves_segment(
        single, cutout_with(slice(28, 34), slice(38, 44))
    )
    assert "dwarfs" in leaves_segment(single, cutout_with(slice(30, 31), slice(32, 33)))
    assert leaves_segment(single, replace(cutout_with(slice(0), slice(0)), segment=None)) == ""


def test_refining_that_runs_away_is_told_from_a_better_answer(single):
    sources = as_sources({"id": [1, 2], "x": [32.0, 38.0], "y": [31.0, 31.0]})
    cutout = replace(cutout_with(slice(0), slice(0)), segment=None)
    samples = single.batch_samples.clone()
    samples[..., 0] -= 1.0
    brighter = replace(single, batch_samples=samples)
    assert "1.00 mag brighter" in ran_away(brighter, single, cutout, sources, 0)
    assert ran_away(single, brighter, cutout, sources, 0) == ""
    alone = as_sources({"id": [1, 2], "x": [32.0, 60.0], "y": [31.0, 31.0]})
    assert ran_away(brighter, single, cutout, alone, 0) == ""
    samples[..., 5] += 3.0
    moved = replace(single, batch_samples=samples)
    own = cutout_with(slice(28, 34), slice(28, 33))
    assert "off the source's segment" in ran_away(moved, single, own, alone, 0)
    assert ran_away(single, moved, own, alone, 0) == ""
