"""The table, the prior box and its bijection to the standard normal."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from deeplegato_pp.errors import RangeError, ShapeError
from deeplegato_pp.scene.parameters import (
    AXIS_RATIO,
    INDEX,
    MAGNITUDE,
    NAMES,
    PARAMETERS,
    POSITION_ANGLE,
    RADIUS,
    SersicParams,
    signal_to_noise,
)
from deeplegato_pp.scene.prior import W_MAX, PriorBox

BOX = PriorBox()
BOXES = [
    BOX,
    BOX.shifted(magnitude=-3.2, radius_factor=0.12),
    PriorBox.from_mapping({"axis_ratio": (0.3, 1.0), "center_x": (-1.0, 7.0)}),
]
BOXED = [i for i in range(7) if i not in (AXIS_RATIO, POSITION_ANGLE)]


def normals(number: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(
        number, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )


def uniform_in(box: PriorBox, number: int, seed: int = 0) -> torch.Tensor:
    """Draws from the prior, made without the bijection."""
    u = torch.rand(number, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    columns = []
    for i, p in enumerate(PARAMETERS):
        lower, upper = getattr(box, p.name)
        if p.scale == "log":
            columns.append(lower * (upper / lower) ** u[:, i])
        else:
            columns.append(lower + (upper - lower) * u[:, i])
    return torch.stack(columns, -1)


def test_the_table_has_the_conventions_order_and_consistent_bounds():
    assert NAMES == (
        "magnitude",
        "effective_radius",
        "sersic_index",
        "axis_ratio",
        "position_angle",
        "center_x",
        "center_y",
    )
    for p in PARAMETERS:
        assert getattr(BOX, p.name) == p.bounds
        assert p.scale in ("linear", "log")
        assert p.meaning
        assert p.reason


@pytest.mark.parametrize("box", BOXES)
def test_draws_from_the_prior_become_standard_normals(box):
    w = box.to_normal(uniform_in(box, 20_000))
    assert w.mean(0).abs().max() < 4 / math.sqrt(20_000)
    assert (torch.cov(w.T) - torch.eye(7)).abs().max() < 0.05
    worst = min(stats.kstest(w[:, i].numpy(), "norm").pvalue for i in range(7))
    assert worst > 0.01 / 7


def test_sample_is_uniform_where_the_prior_is():
    p = BOX.sample(20_000, torch.Generator().manual_seed(1))
    assert p.dtype == torch.float64
    assert bool(BOX.contains(p).all())
    for i, parameter in enumerate(PARAMETERS):
        x = p[:, i].log() if parameter.scale == "log" else p[:, i]
        lower, upper = (math.log(b) if parameter.scale == "log" else b for b in parameter.bounds)
        fraction = (x - lower) / (upper - lower)
        assert stats.kstest(fraction.numpy(), "uniform").pvalue > 0.01 / 7, parameter.name


def test_sample_repeats_with_its_generator():
    one, two = (BOX.sample(5, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(one, two)


@pytest.mark.parametrize("box", BOXES)
def test_round_trip_from_physical_values(box):
    p = uniform_in(box, 5_000, seed=2)
    back = box.to_physical(box.to_normal(p))
    width = torch.tensor([getattr(box, n)[1] - getattr(box, n)[0] for n in NAMES])
    assert ((back - p).abs() / width).max() < 1e-9


@pytest.mark.parametrize("box", BOXES)
def test_round_trip_from_coordinates(box):
    """To 1e-6 as far as float64 holds the physical value: 6.5 sigma.

    Beyond, neighbouring doubles of, say, a magnitude near 28 are themselves farther apart in w.
    """
    w = normals(5_000, seed=3)
    w[:2_000] *= 1.5
    shape = w[:, [AXIS_RATIO, POSITION_ANGLE]]
    w = w[(w.abs().amax(1) < 6.5) & (shape.norm(dim=1) < 6.0)]
    assert len(w) > 4_900
    assert (box.to_normal(box.to_physical(w)) - w).abs().max() < 1e-6


@pytest.mark.parametrize("i", BOXED)
def test_tails_reach_eight_sigma_in_both_directions(i):
    w = torch.zeros(33, 7, dtype=torch.float64)
    w[:, i] = torch.linspace(-W_MAX, W_MAX, 33)
    p = BOX.to_physical(w)
    assert bool(BOX.contains(p).all())
    assert bool((p[1:, i] >= p[:-1, i]).all())
    back = BOX.to_normal(p)
    # As exact as the spacing of doubles at the value allows.
    lower, upper = getattr(BOX, NAMES[i])
    if PARAMETERS[i].scale == "log":
        lower, upper = math.log(lower), math.log(upper)
    spacing = torch.finfo(torch.float64).eps * max(abs(lower), abs(upper), 1.0) / (upper - lower)
    density = (-0.5 * w[:, i].abs().clamp(max=7.9) ** 2).exp() / math.sqrt(2 * math.pi)
    allowed = (1e-9 + 4 * spacing / density).clamp(max=1.0)
    assert ((back - w)[:, i].abs() <= allowed).all()
    assert (BOX.to_physical(back) - p)[:, i].abs().max() < 1e-13 * p[:, i].abs().max()


def test_zero_bounds_resolve_eight_sigma():
    """Where a bound is zero, doubles are dense there, and the tail comes back to 1e-6."""
    box = PriorBox.from_mapping({"center_x": (0.0, 1.0)})
    w = torch.zeros(9, 7, dtype=torch.float64)
    w[:, 5] = torch.linspace(-7.99, 0.0, 9)
    assert (box.to_normal(box.to_physical(w)) - w).abs().max() < 1e-6


def test_edges_map_to_finite_coordinates():
    lower = torch.tensor([[getattr(BOX, n)[0] for n in NAMES]], dtype=torch.float64)
    upper = torch.tensor([[getattr(BOX, n)[1] for n in NAMES]], dtype=torch.float64)
    for edge in (lower, upper):
        w = BOX.to_normal(edge)
        assert bool(w.isfinite().all())
        assert w[0, BOXED].abs().max() <= W_MAX + 1e-6


def test_float32_is_taken_in_float64():
    w = BOX.to_normal(BOX.sample(10).float().double().clamp_min(-4.99))
    assert w.dtype == torch.float64
    assert BOX.to_physical(w.float()).dtype == torch.float64


@pytest.mark.parametrize("box", BOXES)
def test_log_jacobian_is_autograds_determinant(box):
    w = normals(50, seed=4)
    for row in w:
        jacobian = torch.autograd.functional.jacobian(box.to_physical, row)
        expected = -torch.linalg.slogdet(jacobian).logabsdet
        assert abs(float(box.log_jacobian(row) - expected)) < 1e-8


def test_density_integrates_to_one_over_the_physical_box():
    """A posterior-like density in w, importance-sampled by uniform draws of the box."""
    p = uniform_in(BOX, 200_000, seed=5)
    w = BOX.to_normal(p)
    centre = torch.tensor([0.5, -0.3, 0.2, 0.8, -0.4, 0.0, 0.3], dtype=torch.float64)
    log_q = -0.5 * ((w - centre) ** 2 / 0.64).sum(1) - 7 * math.log(0.8 * math.sqrt(2 * math.pi))
    log_density = log_q + BOX.log_jacobian(w)
    log_uniform = torch.zeros(len(p), dtype=torch.float64)
    for i, parameter in enumerate(PARAMETERS):
        lower, upper = parameter.bounds
        if parameter.scale == "log":
            log_uniform -= p[:, i].log() + math.log(math.log(upper / lower))
        else:
            log_uniform -= math.log(upper - lower)
    ratio = (log_density - log_uniform).exp()
    error = float(ratio.std()) / math.sqrt(len(p))
    assert error < 0.02
    assert abs(float(ratio.mean()) - 1.0) < 4 * error


def test_the_shape_factor_integrates_to_one_by_quadrature():
    q = 0.1 + 0.9 * (torch.arange(400, dtype=torch.float64) + 0.5) / 400
    angle = 180.0 * (torch.arange(200, dtype=torch.float64) + 0.5) / 200
    grid = torch.cartesian_prod(q, angle)
    p = BOX.to_physical(torch.zeros(7, dtype=torch.float64)).repeat(len(grid), 1)
    p[:, AXIS_RATIO], p[:, POSITION_ANGLE] = grid.unbind(1)
    w = BOX.to_normal(p)
    at_centre = BOX.log_jacobian(torch.zeros(7, dtype=torch.float64)) - math.log(2 * math.pi)
    plane = BOX.log_jacobian(w) - at_centre - math.log(0.9 * 180.0)  # ln |dw/d(q, angle)|
    shape = w[:, [AXIS_RATIO, POSITION_ANGLE]]
    log_density = plane - 0.5 * ((shape - 0.4) ** 2).sum(1) - math.log(2 * math.pi)
    assert abs(float(log_density.exp().mean()) * 0.9 * 180.0 - 1.0) < 1e-3


def test_log_prior_is_the_standard_normals():
    w = normals(5, seed=6)
    expected = stats.multivariate_normal(mean=[0.0] * 7).logpdf(w.numpy())
    assert torch.allclose(BOX.log_prior(w), torch.from_numpy(expected))


def test_no_seam_at_180_degrees():
    near = torch.tensor([179.9999, 180.0, 0.0, 0.0001, -0.0001, 360.0], dtype=torch.float64)
    p = BOX.to_physical(normals(1, seed=7)).repeat(len(near), 1)
    p[:, POSITION_ANGLE] = near
    w = BOX.to_normal(p)
    assert (w - w[2]).abs().max() < 1e-4
    assert (BOX.log_jacobian(w) - BOX.log_jacobian(w[2])).abs().max() < 1e-4
    angle = BOX.to_physical(w)[:, POSITION_ANGLE]
    assert bool(((angle >= 0) & (angle < 180)).all())


@pytest.mark.parametrize(
    ("column", "value", "name"),
    [(0, 28.5, "magnitude"), (1, 12.3, "effective_radius"), (2, 0.1, "sersic_index")],
)
def test_values_outside_are_named_with_row_bounds_and_remedy(column, value, name):
    p = BOX.sample(9, torch.Generator().manual_seed(0))
    p[7, column] = value
    with pytest.raises(RangeError) as caught:
        BOX.to_normal(p)
    message = str(caught.value)
    lower, upper = getattr(BOX, name)
    assert f"{name} must lie in [{lower}, {upper}]" in message
    assert f"got {value} in row 7" in message
    assert "Widen the prior box" in message


@pytest.mark.parametrize("column", range(7))
def test_nan_is_refused_in_every_column(column):
    p = BOX.sample(2, torch.Generator().manual_seed(0))
    p[1, column] = math.nan
    with pytest.raises(RangeError, match=rf"{NAMES[column]} .*got nan in row 1"):
        BOX.to_normal(p)


def test_wrong_number_of_columns_is_refused():
    with pytest.raises(ShapeError, match=r"\(\*, 7\).*got \(3, 6\)"):
        BOX.to_normal(torch.zeros(3, 6))
    with pytest.raises(ShapeError, match="takes 7 values"):
        SersicParams.from_tensor(torch.zeros(6))


def test_shifted_box_means_the_same_w():
    """An instrument with another scale and zero point sees the same coordinates."""
    moved = BOX.shifted(magnitude=-4.5, radius_factor=0.2)
    p = BOX.sample(100, torch.Generator().manual_seed(8))
    q = p.clone()
    q[:, MAGNITUDE] -= 4.5
    q[:, RADIUS] *= 0.2
    assert (moved.to_normal(q) - BOX.to_normal(p)).abs().max() < 1e-6
    assert moved.magnitude == (10.5, 23.5)
    assert moved.effective_radius == pytest.approx((0.02, 2.0))


def test_mapping_round_trip():
    box = BOXES[2]
    assert PriorBox.from_mapping(box.to_dict()) == box
    assert PriorBox.from_mapping({}) == BOX


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ({"radius": (1, 2)}, "Unknown parameters.*radius"),
        ({"magnitude": (1, 2, 3)}, "magnitude takes two numbers"),
        ({"magnitude": 3.0}, "magnitude takes two numbers"),
        ({"magnitude": ("a", "b")}, "magnitude takes two numbers"),
        ({"magnitude": (28.0, 15.0)}, "magnitude must be finite with lower < upper"),
        ({"magnitude": (15.0, math.inf)}, "magnitude must be finite"),
        ({"effective_radius": (0.0, 1.0)}, "effective_radius has a logarithmic prior"),
        ({"axis_ratio": (0.1, 0.9)}, "axis_ratio ends at 1"),
        ({"axis_ratio": (0.0, 1.0)}, "axis_ratio must have a lower bound > 0"),
        ({"position_angle": (0.0, 90.0)}, "position_angle spans"),
    ],
)
def test_impossible_boxes_are_refused(bounds, message):
    with pytest.raises(RangeError, match=message):
        PriorBox.from_mapping(bounds)


def test_gradients_flow_through_the_box():
    w = normals(6, seed=9).requires_grad_()
    assert torch.autograd.gradcheck(BOX.to_physical, w)
    zero = torch.zeros(1, 7, dtype=torch.float64, requires_grad=True)
    BOX.to_physical(zero)[:, [0, 1, 2, 3, 5, 6]].sum().backward()
    assert bool(zero.grad.isfinite().all())


def test_sersic_params_go_to_tensors_and_back():
    one = SersicParams(20.0, 1.0, 4.0, 0.7, 30.0)
    assert SersicParams.from_tensor(one.to_tensor()) == one


def test_signal_to_noise_scales_with_flux_and_falls_with_area():
    one = torch.ones(1, dtype=torch.float64)
    base = signal_to_noise(1000 * one, 4 * one, one, 3 * one)
    assert float(base) == pytest.approx(500 / math.sqrt(2 * math.pi * (16 + 2.25)))
    assert float(signal_to_noise(2000 * one, 4 * one, one, 3 * one, 2.0)) == pytest.approx(
        float(base)
    )


finite_w = st.lists(st.floats(-6.0, 6.0), min_size=7, max_size=7)


@settings(max_examples=100, deadline=None)
@given(finite_w)
def test_any_w_lies_in_the_box_and_its_shape_comes_back(values):
    w = torch.tensor(values, dtype=torch.float64)
    p = BOX.to_physical(w)
    assert bool(BOX.contains(p))
    again = BOX.to_physical(BOX.to_normal(p))
    q_error = (again - p).abs()[[i for i in range(7) if i != POSITION_ANGLE]]
    assert float(q_error.max()) < 1e-9


@settings(max_examples=50, deadline=None)
@given(st.floats(-1e6, 1e6), st.sampled_from([n for n in NAMES if n != "position_angle"]))
def test_a_value_is_taken_if_and_only_if_it_lies_inside(value, name):
    p = BOX.to_physical(torch.full((1, 7), 0.3, dtype=torch.float64))
    p[0, INDEX[name]] = value
    lower, upper = getattr(BOX, name)
    if lower <= value <= upper:
        assert bool(BOX.to_normal(p).isfinite().all())
    else:
        with pytest.raises(RangeError, match=name):
            BOX.to_normal(p)
