"""Tables of the unit Sérsic profile: Hankel transform, light beyond a radius, and b_n.

The tables are computed in float64 by ``python -m deeplegato_pp.scene.render.hankel_tables`` and
shipped with the package, so that rendering needs neither SciPy nor a computation at start-up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

_FILE = Path(__file__).with_name("sersic_tables.npz")

N_MIN, N_MAX = 0.25, 10.0
"""Range of n in the tables; wider than any prior, so that interpolation stays inside."""


@dataclass(frozen=True)
class LogTable:
    """A function f(n, x), piecewise cubic in ln x and locally cubic in ln n.

    Attributes:
        start: Smallest ln x; f is constant below it.
        step: Width of an interval in ln x.
        n_start: Smallest ln n.
        n_step: Spacing of the rows in ln n.
        coefficients: Polynomials in the fraction of an interval, shape (rows, intervals, 4).
    """

    start: float
    step: float
    n_start: float
    n_step: float
    coefficients: Float[Tensor, "n k 4"]

    def rows(self, sersic_index: Float[Tensor, " b"]) -> Float[Tensor, "b k 4"]:
        """Returns the polynomials at each galaxy's n (cubic Lagrange interpolation in ln n)."""
        near, t = self._near(sersic_index)
        return torch.einsum("bj,bjkc->bkc", _lagrange(t), near).to(sersic_index.dtype)

    def _near(self, sersic_index: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the four rows nearest to each n, (B, 4, K, 4), and n's position between them."""
        table = _on(self.coefficients, sersic_index.device)
        position = (sersic_index.double().log() - self.n_start) / self.n_step
        first = position.detach().floor().long().clamp(1, table.shape[0] - 3) - 1
        near = table[first[:, None] + torch.arange(4, device=first.device)]
        return near, position - (first + 1)

    def evaluate(
        self, rows: Float[Tensor, "b k 4"], log_x: Float[Tensor, "b *p"]
    ) -> Float[Tensor, "b *p"]:
        """Returns f at ln x, one row per galaxy; f is constant beyond the last interval."""
        flat, t = self._interval(rows.shape[1], log_x)
        c0, c1, c2, c3 = _gather(rows, flat, t)
        return torch.addcmul(c0, torch.addcmul(c1, torch.addcmul(c2, c3, t), t), t)

    def evaluate_with_slopes(
        self, sersic_index: Float[Tensor, " b"], log_x: Float[Tensor, "b *p"]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Returns f, df/dln x and df/dn at each galaxy's n and ln x, each with shape (B, *P)."""
        near, at = self._near(sersic_index)
        rows = torch.einsum("bj,bjkc->bkc", _lagrange(at), near).to(log_x.dtype)
        with_n = torch.einsum("bj,bjkc->bkc", _lagrange_slopes(at), near)
        with_n = (with_n / (self.n_step * sersic_index.double())[:, None, None]).to(log_x.dtype)
        flat, t = self._interval(rows.shape[1], log_x)
        c0, c1, c2, c3 = _gather(rows, flat, t)
        value = torch.addcmul(c0, torch.addcmul(c1, torch.addcmul(c2, c3, t), t), t)
        slope = torch.addcmul(c1, torch.addcmul(2.0 * c2, c3, t, value=3.0), t) / self.step
        c0, c1, c2, c3 = _gather(with_n, flat, t)
        by_n = torch.addcmul(c0, torch.addcmul(c1, torch.addcmul(c2, c3, t), t), t)
        return value, torch.where(log_x > self.start, slope, 0.0), by_n

    def _interval(self, intervals: int, log_x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns flat indices of the intervals that contain ln x, and fractions within them."""
        position = ((log_x - self.start) / self.step).clamp(0.0, intervals * (1.0 - 1e-6))
        index = position.detach().floor()
        offset = torch.arange(len(log_x), device=log_x.device).view(
            (-1,) + (1,) * (log_x.dim() - 1)
        )
        flat = (index.to(torch.int32) + (offset * intervals).to(torch.int32)).reshape(-1)
        return flat, position - index


def _gather(rows: Float[Tensor, "b k 4"], flat: Tensor, like: Tensor) -> list[Tensor]:
    """Returns the four polynomial coefficients at flat indices, each in the shape of `like`."""
    # Four gathers of one number are several times faster than one gather of four.
    parts = rows.reshape(-1, 4).T.contiguous().unbind(0)
    return [part.index_select(0, flat).view_as(like) for part in parts]


def _lagrange(t: Float[Tensor, " b"]) -> Float[Tensor, "b 4"]:
    """Returns the weights at -1, 0, 1 and 2 of cubic Lagrange interpolation."""
    return torch.stack(
        [
            -t * (t - 1) * (t - 2) / 6,
            (t + 1) * (t - 1) * (t - 2) / 2,
            -(t + 1) * t * (t - 2) / 2,
            (t + 1) * t * (t - 1) / 6,
        ],
        -1,
    )


def _lagrange_slopes(t: Float[Tensor, " b"]) -> Float[Tensor, "b 4"]:
    """Returns the derivatives of :func:`_lagrange`."""
    t2 = t**2
    return torch.stack(
        [
            -(3 * t2 - 6 * t + 2) / 6,
            (3 * t2 - 4 * t - 1) / 2,
            -(3 * t2 - 2 * t - 2) / 2,
            (3 * t2 - 1) / 6,
        ],
        -1,
    )


@dataclass(frozen=True)
class SersicTables:
    """Tabulated functions of the unit profile (flux 1, R_e = 1).

    Attributes:
        hankel: T_n(k), the profile's Fourier transform; k in cycles per R_e.
        outside: Fraction of the light beyond x R_e.
        bn_series: Chebyshev coefficients of b_n - 2n + 1/3 in 1/n.
        n_min: Smallest tabulated n.
        n_max: Largest tabulated n.
    """

    hankel: LogTable
    outside: LogTable
    bn_series: Float[Tensor, " c"]
    n_min: float
    n_max: float


@cache
def load_tables() -> SersicTables:
    """Reads the shipped tables (cached; about 10 ms)."""
    with np.load(_FILE) as f:
        n_start, n_step = (float(x) for x in f["n_grid"])
        hankel, outside = (
            LogTable(
                float(f[f"{name}_grid"][0]),
                float(f[f"{name}_grid"][1]),
                n_start,
                n_step,
                _hermite(f[f"{name}_value"], f[f"{name}_slope"], float(f[f"{name}_grid"][1])),
            )
            for name in ("hankel", "outside")
        )
        series = torch.from_numpy(f["bn_series"])
    return SersicTables(hankel, outside, series, N_MIN, N_MAX)


@cache
def _on(table: Tensor, device: torch.device) -> Tensor:
    return table.to(device)


def _hermite(value: np.ndarray, slope: np.ndarray, step: float) -> Tensor:
    """Converts values and slopes at the knots to one cubic per interval."""
    f0, f1 = value[:, :-1], value[:, 1:]
    d0, d1 = slope[:, :-1] * step, slope[:, 1:] * step
    c = np.stack([f0, d0, 3 * (f1 - f0) - 2 * d0 - d1, 2 * (f0 - f1) + d0 + d1], -1)
    return torch.from_numpy(np.ascontiguousarray(c))


def build_tables() -> dict[str, np.ndarray]:
    r"""Computes the tables with FFTLog and the incomplete gamma function.

    :math:`T_n(k) = 2\pi \int I(r) J_0(2 \pi k r) r\,dr` over 16 decades of r at 450 points a
    decade; the cubics through values and slopes every 0.05 in ln k are accurate to 1e-6 of T_n.

    Returns:
        Arrays by name, as `load_tables` reads them.

    References:
        | Uncorrelated modes of the non-linear power spectrum (Hamilton, 2000; FFTLog)
        | https://arxiv.org/abs/astro-ph/9905191
    """
    from scipy.interpolate import CubicSpline
    from scipy.special import gammaincc, gammaincinv, gammaln

    n_step = 0.03
    # One extra row at either end, so that every n has four neighbours.
    rows = math.ceil(math.log(N_MAX / N_MIN) / n_step) + 3
    log_n = math.log(N_MIN) - n_step + n_step * np.arange(rows)
    n = np.exp(log_n)
    bn = gammaincinv(2 * n, 0.5)

    step = 0.05
    log_k = np.arange(math.log(1e-5), math.log(2e3) + step, step)
    value, slope = np.empty((rows, log_k.size)), np.empty((rows, log_k.size))
    for i in range(rows):
        log_i0 = 2 * n[i] * np.log(bn[i]) - gammaln(2 * n[i]) - np.log(2 * np.pi * n[i])
        fine_k, transform = _hankel_transform(n[i], bn[i], log_i0)
        spline = CubicSpline(fine_k, transform)
        value[i], slope[i] = spline(log_k), spline(log_k, 1)

    log_x = np.arange(0.0, math.log(1e6) + step, step)
    u = bn[:, None] * np.exp(log_x / n[:, None])
    outside = gammaincc(2 * n[:, None], u)
    outside_slope = -np.exp(2 * n[:, None] * np.log(u) - u - gammaln(2 * n[:, None])) / n[:, None]

    inverse = np.polynomial.chebyshev.chebpts1(64)
    low, high = 1 / N_MAX, 1 / N_MIN
    node_n = 2.0 / ((high - low) * inverse + low + high)
    excess = gammaincinv(2 * node_n, 0.5) - 2 * node_n + 1 / 3
    series = np.polynomial.chebyshev.chebfit(inverse, excess, 31)
    return {
        "n_grid": np.array([log_n[0], n_step]),
        "hankel_grid": np.array([log_k[0], step]),
        "hankel_value": value,
        "hankel_slope": slope,
        "outside_grid": np.array([log_x[0], step]),
        "outside_value": outside,
        "outside_slope": outside_slope,
        "bn_series": series,
    }


def _hankel_transform(n: float, bn: float, log_i0: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns ln k (cycles per R_e) and T_n(k) of the unit profile."""
    from scipy.fft import fht, fhtoffset

    points, low, high = 16384, math.log(1e-9), math.log(1e8)
    log_r = np.linspace(low, high, points)
    dln = log_r[1] - log_r[0]
    r = np.exp(log_r)
    profile = np.exp(log_i0 - bn * np.exp(log_r / n)) * r
    offset = fhtoffset(dln, mu=0.0)
    angular = np.exp(offset) / r[::-1]  # 2 pi k
    transform = 2 * np.pi * fht(profile, dln, mu=0.0, offset=offset) / angular
    return np.log(angular / (2 * np.pi)), transform


if __name__ == "__main__":
    np.savez(_FILE, allow_pickle=False, **build_tables())
