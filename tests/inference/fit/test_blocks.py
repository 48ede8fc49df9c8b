import math

import torch

from deeplegato_pp.inference.fit.blocks import (
    SECTORS,
    Ellipses,
    blocks_among,
    polar_blocks,
    polar_coordinates,
)


def ellipses(q: float = 0.5, angle: float = 30.0, x: float = 1.5, y: float = -2.0) -> Ellipses:
    return Ellipses(*(torch.tensor([v], dtype=torch.float64) for v in (x, y, q, angle)))


def test_radius_is_constant_along_the_ellipse_and_azimuth_starts_at_its_major_axis():
    # An upright ellipse of q = 0.25: 8 px up its major axis as far as 2 px across it.
    radius, azimuth = polar_coordinates(ellipses(0.25, 0.0, 0.0, 0.0), 33)
    assert math.isclose(float(radius[0, 24, 16]), float(radius[0, 16, 18]), rel_tol=1e-12)
    assert math.isclose(float(radius[0, 24, 16]), 4.0, rel_tol=1e-12)  # sqrt(8 * 2)
    assert math.isclose(float(azimuth[0, 24, 16]), 0.0, abs_tol=1e-9)
    assert math.isclose(float(azimuth[0, 16, 14]), 0.5 * math.pi, rel_tol=1e-9)


def test_no_block_is_smaller_than_the_psf_and_few_are_empty():
    blocks = polar_blocks(ellipses(1.0, 0.0, 0.0, 0.0), 65, torch.tensor([4.0]).double())[0]
    radius, _ = polar_coordinates(ellipses(1.0, 0.0, 0.0, 0.0), 65)
    inside = radius[0] < 24.0  # rings beyond are cut by the stamp's edge
    _, counts = blocks[inside].unique(return_counts=True)
    assert int(counts[1:-8].min()) >= 0.7 * 4.0**2
    assert int(counts.max()) < 0.12 * int(inside.sum())


def test_a_ring_is_as_wide_as_asked_where_the_psf_is_narrow():
    narrow = torch.tensor([0.01]).double()
    blocks = polar_blocks(ellipses(1.0, 0.0, 0.0, 0.0), 65, narrow, ring_width=0.5, sectors=1)[0]
    radius, _ = polar_coordinates(ellipses(1.0, 0.0, 0.0, 0.0), 65)
    for block in blocks.unique():
        found = radius[0][blocks == block]
        assert float(found.max() / found.min().clamp_min(1e-3)) <= math.exp(0.5) + 1e-9 or (
            float(found.min()) == 0.0
        )


def test_blocks_turn_with_the_galaxy_and_galaxies_do_not_mix():
    turned = Ellipses(
        torch.zeros(2).double(),
        torch.zeros(2).double(),
        torch.full((2,), 0.4).double(),
        torch.tensor([20.0, 110.0]).double(),
    )
    blocks = polar_blocks(turned, 41, torch.full((2,), 3.0).double())
    first, second = blocks[0], torch.rot90(blocks[1], 1, (0, 1))
    # A quarter turn maps one on the other, numbers included, pixels on borders left aside.
    same = (first == second) | (first == torch.rot90(blocks[1], -1, (0, 1)))
    assert float(same.double().mean()) > 0.95


def test_a_pixel_belongs_to_the_galaxy_that_it_is_nearest_to_in_radii():
    one = torch.ones(1, dtype=torch.float64)
    small = Ellipses(-6 * one, 0 * one, one, 0 * one)
    large = Ellipses(6 * one, 0 * one, one, 0 * one)
    blocks = blocks_among([small, large], [2.0, 6.0], 33, 3 * one)[0]
    own = polar_blocks(small, 33, 3 * one)[0]
    first = SECTORS * (int(own.max()) // SECTORS + 1)
    assert (blocks[16, :14] < first).tolist() == [False] * 4 + [True] * 10
    assert bool((blocks[16, 14:] >= first).all())
    assert bool((blocks[blocks < first] == own[blocks < first]).all())
