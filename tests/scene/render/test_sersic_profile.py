"""b_n, the Sérsic law and the shipped tables, against scipy and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import integrate, special

from deeplegato_pp.errors import RangeError
from deeplegato_pp.scene.render.hankel_tables import _FILE, build_tables, load_tables
from deeplegato_pp.scene.render.sersic_profile import (
    compute_bn,
    ellipse_form,
    generate_sersic_profile,
    power_of_square,
)


def column(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_bn_is_the_root_that_scipy_finds():
    n = np.geomspace(0.25, 10.0, 500)
    error = compute_bn(torch.from_numpy(n)).numpy() / special.gammaincinv(2 * n, 0.5) - 1
    assert np.abs(error).max() < 1e-11


def test_bn_in_float32_and_for_whole_numbers():
    assert float(compute_bn(torch.tensor(4.0))) == pytest.approx(7.669249, rel=1e-6)
    assert float(compute_bn(torch.tensor(4))) == pytest.approx(7.669249442, rel=1e-9)


def test_bn_differentiates():
    n = column(0.3, 1.0, 4.0, 8.0).requires_grad_()
    assert torch.autograd.gradcheck(compute_bn, n)


@pytest.mark.parametrize("n", [0.2, 10.5, math.nan, -1.0])
def test_indices_outside_the_tables_are_refused(n):
    with pytest.raises(RangeError, match=r"sersic_index must lie in \[0\.25, 10\].*got"):
        compute_bn(column(1.0, n))


@pytest.mark.parametrize("n", [0.3, 0.5, 1.0, 2.5, 4.0, 8.0])
@pytest.mark.parametrize("q", [1.0, 0.3])
def test_profile_holds_unit_light_and_half_of_it_inside_the_ellipse(n, q):
    """By quadrature in real space, along elliptical annuli of axis ratio q."""

    def ring(t: float, radius: float = 7.0) -> float:
        a = radius * math.exp(t)
        light = generate_sersic_profile(
            column(3.0), column(radius), column(n), column(q), column(0.0), column(0.0), column(a)
        )
        return 2 * math.pi * q * a**2 * float(light)

    inside = integrate.quad(ring, -30, 0, epsabs=1e-10, limit=200)[0]
    outside = integrate.quad(ring, 0, 12 * n + 3, epsabs=1e-10, limit=200)[0]
    assert inside == pytest.approx(1.5, rel=1e-7)
    assert outside == pytest.approx(1.5, rel=1e-6)


def test_position_angle_turns_from_y_towards_minus_x():
    """Counter-clockwise from +y: at 30 degrees the major axis points to (-sin 30, cos 30)."""
    args = (column(1.0), column(5.0), column(1.0), column(0.2), column(30.0))
    x, y = -10 * math.sin(math.radians(30)), 10 * math.cos(math.radians(30))
    on_axis = generate_sersic_profile(*args, column(x), column(y))
    mirrored = generate_sersic_profile(*args, column(-x), column(y))
    assert float(on_axis) > 100 * float(mirrored)


def test_ellipse_form_is_one_at_the_ends_of_both_axes():
    xx, xy, yy = ellipse_form(column(6.0), column(0.5), column(90.0))
    assert float(36 * xx) == pytest.approx(1.0)  # at 90 degrees the major axis lies along x
    assert float(9 * yy) == pytest.approx(1.0)
    assert float(xy) == pytest.approx(0.0, abs=1e-15)


def test_cusp_has_finite_gradients():
    r2 = column(0.0, 1e-300, 1.0).requires_grad_()
    power_of_square(r2, column(4.0, 4.0, 4.0)).sum().backward()
    assert bool(r2.grad.isfinite().all())


def transform(n: float, k: torch.Tensor) -> torch.Tensor:
    hankel = load_tables().hankel
    return hankel.evaluate(hankel.rows(column(n)), k.log()[None])[0]


def test_transform_of_a_gaussian_is_a_gaussian():
    k = torch.logspace(-4, 0.2, 400, dtype=torch.float64)
    sigma2 = 1 / (2 * math.log(2))
    expected = (-2 * math.pi**2 * k**2 * sigma2).exp()
    assert (transform(0.5, k) - expected).abs().max() < 1e-6


def test_transform_of_an_exponential_is_the_closed_form():
    k = torch.logspace(-4, 3, 500, dtype=torch.float64)
    h = 1 / float(compute_bn(column(1.0)))
    expected = (1 + (2 * math.pi * k * h) ** 2) ** -1.5
    assert (transform(1.0, k) - expected).abs().max() < 1e-6


@pytest.mark.parametrize("n", [0.35, 2.2, 8.0])
def test_transform_against_quadrature(n):
    """scipy's quadrature of the profile times J0, on radii where neither oscillates wildly."""
    bn = float(special.gammaincinv(2 * n, 0.5))
    log_i0 = 2 * n * math.log(bn) - special.gammaln(2 * n) - math.log(2 * math.pi * n)
    for k in (0.02, 0.2, 1.0):
        t = np.linspace(-25, 6.0 * n if n > 1 else 3.0, 400_001)
        r = np.exp(t)
        light = np.exp(log_i0 - bn * r ** (1 / n)) * special.j0(2 * np.pi * k * r) * r**2
        expected = 2 * math.pi * integrate.simpson(light, x=t)
        assert float(transform(n, column(k))) == pytest.approx(expected, abs=3e-6)


@pytest.mark.parametrize("n", [0.3, 1.0, 4.0, 8.0])
def test_transform_starts_at_one_and_light_outside_ends_at_zero(n):
    assert float(transform(n, column(1e-7))) == pytest.approx(1.0, abs=2e-5)
    outside = load_tables().outside
    rows = outside.rows(column(n))
    x = torch.logspace(0, 4, 200, dtype=torch.float64)
    bn = special.gammaincinv(2 * n, 0.5)
    expected = special.gammaincc(2 * n, bn * x.numpy() ** (1 / n))
    found = outside.evaluate(rows, x.log()[None])[0].numpy()
    assert np.abs(found - expected).max() < 1e-5


@pytest.mark.slow
def test_shipped_tables_are_what_the_module_builds():
    built = build_tables()
    with np.load(_FILE) as shipped:
        assert set(shipped) == set(built)
        for name, value in built.items():
            np.testing.assert_allclose(shipped[name], value, rtol=1e-9, atol=1e-12, err_msg=name)
