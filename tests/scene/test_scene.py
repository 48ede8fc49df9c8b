"""Scenes: sums of components with parameters free, fixed and tied."""

from __future__ import annotations

import math

import pytest
import torch

from deeplegato_pp.errors import RangeError, ShapeError
from deeplegato_pp.scene.components import Component, PointSource, Sersic
from deeplegato_pp.scene.composites import TwoSersics
from deeplegato_pp.scene.prior import PriorBox
from deeplegato_pp.scene.render.point_source import render_points
from deeplegato_pp.scene.render.renderer import render_sersic
from deeplegato_pp.scene.scene import Scene
from simulated_galaxies import make_psf

BOX = PriorBox()
PSF = make_psf(3.0, 21)
CENTRE = {f"disc_{name}": f"bulge_{name}" for name in ("center_x", "center_y")}
SHAPE = {f"disc_{name}": f"bulge_{name}" for name in ("axis_ratio", "position_angle")}


def two_profiles(**options) -> Scene:
    return Scene({"bulge": Sersic(BOX), "disc": Sersic(BOX)}, **options)


def coordinates(number: int, dim: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(number, dim, generator=generator, dtype=torch.float64)


def test_one_component_is_the_box_itself():
    scene, u = Scene({"galaxy": Sersic(BOX)}), coordinates(20, 7)
    assert scene.table.names[0] == "magnitude"
    torch.testing.assert_close(scene.to_physical(u), BOX.to_physical(u), atol=0, rtol=0)
    torch.testing.assert_close(scene.log_jacobian(u), BOX.log_jacobian(u))
    torch.testing.assert_close(scene.to_coordinates(BOX.to_physical(u)), u, atol=1e-6, rtol=0)


def test_tied_parameters_follow_and_are_not_counted():
    scene = two_profiles(ties=CENTRE)
    assert scene.dim == 12
    assert not set(CENTRE) & set(scene.free.names)
    values = scene.to_physical(coordinates(5, 12))
    for tied, source in CENTRE.items():
        assert torch.equal(values[:, scene.table.index(tied)], values[:, scene.table.index(source)])


def test_fixed_parameters_keep_their_value():
    scene = two_profiles(fixed={"bulge_sersic_index": 4.0, "disc_sersic_index": 1.0}, ties=SHAPE)
    assert scene.dim == 10
    values = scene.to_physical(coordinates(5, 10))
    assert values[:, scene.table.index("bulge_sersic_index")].tolist() == pytest.approx([4.0] * 5)
    assert values[:, scene.table.index("disc_sersic_index")].tolist() == pytest.approx([1.0] * 5)
    for tied, source in SHAPE.items():
        assert torch.equal(values[:, scene.table.index(tied)], values[:, scene.table.index(source)])


def draw(component: Component, values: torch.Tensor) -> torch.Tensor:
    return render_sersic(*component.columns(values)[0], PSF, 48)


def test_the_image_is_the_sum_of_the_components():
    scene, u = two_profiles(ties=CENTRE), coordinates(3, 12)
    bulge, disc = scene.to_physical(u).split(7, dim=1)
    expected = draw(Sersic(BOX), bulge) + draw(Sersic(BOX), disc)
    torch.testing.assert_close(scene.images(u, PSF, 48), expected)


def test_kinds_are_mixed():
    ties = {f"point_{name}": f"host_{name}" for name in ("center_x", "center_y")}
    scene = Scene({"point": PointSource(BOX), "host": Sersic(BOX)}, ties=ties)
    u = coordinates(2, scene.dim)
    values = scene.to_physical(u)
    star = render_points(*PointSource(BOX).columns(values[:, :3])[0, [0, 5, 6]], PSF, 48)
    expected = star + draw(Sersic(BOX), values[:, 3:])
    found = scene.images(u, PSF, 48)
    torch.testing.assert_close(found, expected, atol=1e-7 * float(expected.max()), rtol=0)


def test_the_jacobian_is_autograds_determinant():
    scene = two_profiles(ties={**CENTRE, **SHAPE}, fixed={"bulge_sersic_index": 4.0})
    u = 0.5 * coordinates(4, scene.dim)
    free = [scene.table.index(name) for name in scene.free.names]
    for row, found in zip(u, scene.log_jacobian(u), strict=True):
        matrix = torch.autograd.functional.jacobian(lambda v: scene.to_physical(v)[free], row)
        assert float(found) == pytest.approx(-float(matrix.det().abs().log()), abs=1e-9)


def test_the_prior_is_normalised_in_its_own_dimension():
    scene = two_profiles(ties=CENTRE)
    at_origin = float(scene.log_prior(torch.zeros(12)))
    assert at_origin == pytest.approx(-6.0 * math.log(2.0 * math.pi))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fixed": {"bulge_size": 1.0}}, "unknown parameter 'bulge_size'"),
        ({"ties": {"disc_center_x": "core_center_x"}}, "unknown parameter 'core_center_x'"),
        ({"fixed": {"bulge_sersic_index": 40.0}}, "bulge_sersic_index is fixed to 40"),
        ({"fixed": {"bulge_axis_ratio": 0.5}}, "fix or tie both or neither"),
        ({"ties": {"disc_center_x": "bulge_magnitude"}}, "their priors differ"),
        (
            {"fixed": {"bulge_center_x": 0.0}, "ties": {"disc_center_x": "bulge_center_x"}},
            "not free itself",
        ),
        (
            {"fixed": {"disc_center_x": 0.0}, "ties": {"disc_center_x": "bulge_center_x"}},
            "both fixed and tied",
        ),
    ],
)
def test_scenes_that_make_no_sense_are_refused(options, message):
    with pytest.raises(RangeError, match=message):
        two_profiles(**options)


def test_an_empty_scene_and_one_without_freedom_are_refused():
    with pytest.raises(RangeError, match="at least one component"):
        Scene({})
    names = PointSource(BOX).table.names
    with pytest.raises(RangeError, match="nothing is left to infer"):
        Scene({"star": PointSource(BOX)}, fixed={"magnitude": 20.0} | dict.fromkeys(names[1:], 0.0))


def test_coordinates_of_another_dimension_are_refused():
    with pytest.raises(ShapeError, match="12 columns"):
        two_profiles(ties=CENTRE).to_physical(torch.zeros(1, 7))


@pytest.mark.parametrize(
    "how",
    [
        {"ties": {"b_center_x": "a_center_x", "b_center_y": "a_center_y"}},
        {"fixed": {f"{c}_center_{axis}": 1.0 for c in "ab" for axis in "xy"}},
    ],
)
def test_two_points_at_one_place_are_refused(how):
    with pytest.raises(RangeError, match="a and b are point sources at one place"):
        Scene({"a": PointSource(PriorBox()), "b": PointSource(PriorBox())}, **how)


def test_points_that_share_one_coordinate_are_told_apart():
    ties = {"b_center_x": "a_center_x"}
    assert Scene({"a": PointSource(PriorBox()), "b": PointSource(PriorBox())}, ties=ties).dim == 5


def test_a_negative_ratio_is_refused():
    with pytest.raises(RangeError, match=r"radius_ratio is fixed to -0\.5, outside its prior"):
        Scene({"galaxy": TwoSersics(PriorBox())}, fixed={"radius_ratio": -0.5})
