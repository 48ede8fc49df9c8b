"""What a fitting program gets and what it returns: plain numpy, for every environment."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

ARRAYS = ("image", "psf", "psf_bare", "sigma", "mask")
PARAMETERS = ("flux", "radius", "index", "axis_ratio", "angle", "x", "y")


@dataclass(frozen=True)
class Start:
    """Start values from the moments of the image, the same for every program.

    Attributes:
        flux: Total flux. [image units]
        radius: Half-light radius along the major axis. [px]
        axis_ratio: Minor over major axis.
        angle: Position angle, counter-clockwise from +y, in [0, 180). [deg]
        x: Centre, 0-based. [px]
        y: Centre, 0-based. [px]
        index: Sérsic index.
    """

    flux: float
    radius: float
    axis_ratio: float
    angle: float
    x: float
    y: float
    index: float = 1.5


@dataclass(frozen=True)
class Galaxy:
    """One galaxy as every program sees it.

    Attributes:
        image: Sky-subtracted image, with shape (H, W).
        psf: PSF at the image's sampling, pixel included, sum 1, odd-sided: what a star looks like.
        psf_bare: The same without the pixel, for programs that integrate the profile over each
            pixel themselves; the PSF as it is where nobody knows better.
        sigma: Total noise, with shape (H, W). [image units]
        mask: True = ignore, with shape (H, W).
        start: Where to begin.
    """

    image: np.ndarray
    psf: np.ndarray
    psf_bare: np.ndarray
    sigma: np.ndarray
    mask: np.ndarray
    start: Start

    def save(self, path: Path) -> None:
        """Writes the galaxy to an .npz file."""
        arrays = {n: getattr(self, n) for n in ARRAYS}
        start = asdict(self.start)
        values = {"start": np.array(list(start.values())), "names": list(start)}
        np.savez_compressed(path, **arrays, **values)

    @classmethod
    def load(cls, path: Path) -> Galaxy:
        """Reads what :meth:`save` wrote."""
        with np.load(path) as file:
            start = {str(n): float(v) for n, v in zip(file["names"], file["start"], strict=True)}
            arrays = {n: file[n] for n in ARRAYS}
        return cls(**arrays, start=Start(**start))


@dataclass(frozen=True)
class Fit:
    """A program's answer.

    Attributes:
        values: By name of :data:`PARAMETERS`, in the units of :class:`Start`.
        errors: One standard deviation; that of the flux over the flux, and absent where the
            program states none.
        caution: Whether the program itself says that the answer is not to be trusted.
    """

    values: dict[str, float]
    errors: dict[str, float] = field(default_factory=dict)
    caution: bool = False

    def check(self) -> Fit:
        """Returns itself if it holds numbers.

        Raises:
            ValueError: If a value is missing or not finite.
        """
        for name in PARAMETERS:
            if not math.isfinite(self.values.get(name, math.nan)):
                raise ValueError(f"{name} is {self.values.get(name)}")
        return self

    def row(self) -> dict[str, Any]:
        """Returns a flat dictionary of values and errors."""
        named: dict[str, Any] = {n: float(self.values[n]) for n in PARAMETERS}
        named |= {f"{n}_std": float(self.errors[n]) for n in PARAMETERS if n in self.errors}
        return named | {"caution": bool(self.caution)}


def sersic_bn(index: float) -> float:
    """Returns b_n of the Sérsic profile, good to 1e-4 for n > 0.36 (Ciotti & Bertin 1999)."""
    n = index
    return 2 * n - 1 / 3 + 4 / (405 * n) + 46 / (25515 * n**2) + 131 / (1148175 * n**3)


def sersic_flux(surface_brightness: float, radius: float, index: float, axis_ratio: float) -> float:
    """Returns a profile's total flux from the surface brightness at R_e (Graham & Driver 2005)."""
    b = sersic_bn(index)
    integral = index * math.exp(b) * b ** (-2 * index) * math.gamma(2 * index)
    return 2 * math.pi * radius**2 * axis_ratio * surface_brightness * integral


def surface_brightness(start: Start) -> float:
    """Returns the surface brightness at R_e of a start. [image units per px]"""
    unit = sersic_flux(1.0, start.radius, start.index, start.axis_ratio)
    return start.flux / unit


def moments(image: np.ndarray, sigma: np.ndarray, mask: np.ndarray) -> Start:
    """Returns start values: Gaussian-weighted moments about the centre, and a curve of growth.

    Args:
        image: With shape (H, W).
        sigma: Noise, with shape (H, W).
        mask: True = ignore.
    """
    good = ~mask & np.isfinite(image) & np.isfinite(sigma)
    light = np.where(good, image, 0.0)
    height, width = image.shape
    yy, xx = np.mgrid[:height, :width].astype(float)
    x, y = (width - 1) / 2, (height - 1) / 2
    cov = np.eye(2) * max(2.0, min(height, width) / 16) ** 2
    for _ in range(20):
        d = np.stack([xx - x, yy - y])
        inverse = np.linalg.inv(cov)
        weight = np.exp(-0.5 * np.einsum("ihw,ij,jhw->hw", d, inverse, d)) * light
        total = weight.sum()
        if not total > 0:
            break
        step = np.array([(weight * d[0]).sum(), (weight * d[1]).sum()]) / total
        second = 2.0 * np.einsum("hw,ihw,jhw->ij", weight, d, d) / total
        values, vectors = np.linalg.eigh(second)
        values = np.clip(values, 1.0, (min(height, width) / 5) ** 2)
        x, y = x + np.clip(step[0], -1, 1), y + np.clip(step[1], -1, 1)
        cov = 0.5 * cov + 0.5 * (vectors * values) @ vectors.T
    values, vectors = np.linalg.eigh(cov)
    axis_ratio = float(np.clip(math.sqrt(values[0] / values[1]), 0.2, 0.95))
    major = vectors[:, 1]
    angle = math.degrees(math.atan2(-major[0], major[1])) % 180.0
    along = (xx - x) * major[0] + (yy - y) * major[1]
    across = (xx - x) * vectors[0, 0] + (yy - y) * vectors[1, 0]
    radius = np.hypot(along, across / axis_ratio)
    reach = min(4.0 * math.sqrt(values[1]), 0.48 * min(height, width))
    order = np.argsort(np.where(good, radius, np.inf), axis=None)
    inside = radius.flat[order] < reach
    growth = np.cumsum(light.flat[order][inside])
    noise = float(np.median(sigma[good]))
    flux = float(growth.max(initial=0.0))
    if flux < 3.0 * noise:
        return Start(3.0 * noise, 3.0, axis_ratio, angle, float(x), float(y))
    half = float(radius.flat[order][inside][int(np.argmax(growth > 0.5 * flux))])
    return Start(flux, max(half, 1.0), axis_ratio, angle, float(x), float(y))
