"""Composite components: shares of the light, priors, images, half-light radii."""

from __future__ import annotations

import math

import pytest
import torch

from deeplegato_pp.errors import ConfigError
from deeplegato_pp.scene.components import Component, PointSource, Sersic
from deeplegato_pp.scene.composites import SersicPoint, TwoSersics
from deeplegato_pp.scene.galaxy_scene import SCENES, GalaxyScene
from deeplegato_pp.scene.half_light import half_light_radius
from deeplegato_pp.scene.prior import PriorBox
from deeplegato_pp.scene.render.renderer import render_sersic
from simulated_galaxies import make_psf

BOX = PriorBox()
PSF = make_psf(3.0, 21)


def draws(name: str, number: int = 4, seed: int = 1) -> torch.Tensor:
    scene = GalaxyScene(name, BOX).scene
    generator = torch.Generator().manual_seed(seed)
    u = torch.randn(number, scene.dim, generator=generator, dtype=torch.float64)
    return scene.to_physical(u)


def draw(component: Component, values: torch.Tensor) -> torch.Tensor:
    return sum(render_sersic(*columns, PSF, 48) for columns in component.columns(values))


@pytest.mark.parametrize("composite", [TwoSersics(BOX, "bulge", "disc"), SersicPoint(BOX)])
def test_the_parts_make_up_the_total(composite):
    name = "sersic+sersic" if isinstance(composite, TwoSersics) else "sersic+point"
    values = draws(name, 50)
    parts = composite.expand(values)
    flux = {part: 10 ** (-0.4 * v[:, 0]) for part, v in parts.items()}
    torch.testing.assert_close(sum(flux.values()), 10 ** (-0.4 * values[:, 0]))
    first = "bulge" if "bulge" in flux else "point"
    share = values[:, composite.table.index(f"{first}_to_total")]
    torch.testing.assert_close(flux[first] / sum(flux.values()), share)


def test_the_image_is_the_sum_of_the_parts():
    for composite, name in ((TwoSersics(BOX), "sersic+sersic"), (SersicPoint(BOX), "sersic+point")):
        values = draws(name)
        alone = [draw(composite.parts[k], v) for k, v in composite.expand(values).items()]
        torch.testing.assert_close(draw(composite, values), alone[0] + alone[1])


def test_a_share_of_none_leaves_the_single_profile():
    values = draws("sersic+point", 1)
    values[0, 1] = 0.0
    single = torch.cat([values[:, :1], values[:, 2:]], 1)
    found, expected = draw(SersicPoint(BOX), values), draw(Sersic(BOX), single)
    assert float((found - expected).abs().max() / expected.max()) < 1e-7
    values[0, 1] = 1.0
    star = draw(PointSource(BOX), values[:, [0, 6, 7]])
    found = draw(SersicPoint(BOX), values)
    assert float((found - star).abs().max() / star.max()) < 1e-7


def test_shares_are_uniform_and_ratios_log_uniform():
    values = draws("bulge+disc", 20_000)
    table = GalaxyScene("bulge+disc", BOX).scene.table
    share = values[:, table.index("bulge_to_total")]
    ratio = values[:, table.index("radius_ratio")].log() / math.log(0.05)
    for found in (share, ratio):
        levels = torch.quantile(found, torch.linspace(0.1, 0.9, 9, dtype=torch.float64))
        assert (levels - torch.linspace(0.1, 0.9, 9)).abs().max() < 0.015
    assert values[:, table.index("bulge_sersic_index")].tolist() == pytest.approx([4.0] * 20_000)


def test_unknown_scenes_are_named():
    with pytest.raises(ConfigError, match=r"unknown scene 'disk', expected one of sersic,"):
        GalaxyScene("disk", BOX)
    assert [GalaxyScene(name, BOX).dim for name in SCENES] == [7, 8, 10, 12]


def test_the_half_light_radius_of_one_profile_is_its_own():
    profile = draws("sersic", 20)
    found = half_light_radius([profile], profile[:, 3], profile[:, 4])
    torch.testing.assert_close(found, profile[:, 1], rtol=1e-6, atol=0)


def test_the_half_light_radius_agrees_with_an_image():
    """Light inside the ellipse, counted on an image without PSF."""
    inner = torch.tensor([[20.7, 1.2, 1.0, 0.9, 20.0, 0.0, 0.0]], dtype=torch.float64)
    outer = torch.tensor([[20.0, 4.0, 0.8, 0.4, 60.0, 0.0, 0.0]], dtype=torch.float64)
    q, angle = torch.tensor([0.5], dtype=torch.float64), torch.tensor([50.0], dtype=torch.float64)
    found = float(half_light_radius([inner, outer], q, angle))
    fine = 6.0  # pixels per unit of radius
    point = torch.zeros(3, 3, dtype=torch.float64)
    point[1, 1] = 1.0
    image = torch.zeros(301, 301, dtype=torch.float64)
    for p in (inner, outer):
        columns = [10 ** (-0.4 * (p[:, 0] - 20.0)), fine * p[:, 1], *p[:, 2:].unbind(-1)]
        image += render_sersic(*columns, point, 301)[0]
    grid = torch.arange(301, dtype=torch.float64) - 150
    t = math.radians(float(angle) + 90.0)
    x, y = grid[None, :], grid[:, None]
    along, across = x * math.cos(t) + y * math.sin(t), -x * math.sin(t) + y * math.cos(t)
    radius = (along**2 + (across / float(q)) ** 2).sqrt() / fine
    total = 10 ** (-0.4 * (inner[0, 0] - 20.0)) + 1.0
    assert float(image[radius < found].sum() / total) == pytest.approx(0.5, abs=0.004)


def test_points_count_as_light_at_the_centre():
    profile = draws("sersic", 1)
    point = profile[:, [0, 5, 6]]
    half = half_light_radius([profile], profile[:, 3], profile[:, 4], [point])
    assert float(half) < 0.01 * float(profile[0, 1])
    fainter = point.clone()
    fainter[:, 0] += 2.5 * math.log10(3.0)
    half = half_light_radius([profile], profile[:, 3], profile[:, 4], [fainter])
    assert 0.05 * float(profile[0, 1]) < float(half) < 0.8 * float(profile[0, 1])
