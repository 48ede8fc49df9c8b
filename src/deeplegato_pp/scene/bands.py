r"""Coordinates and priors of one galaxy observed in several bands.

Parameters are defined in the frame of the first band's stamp (its pixels, position angle and
centre). The stamps of the other bands may be shifted, rotated, mirrored or sampled differently, and
each band has its own magnitude. The structure (R_e, n, q, position angle) is

* ``shared``: the same in all bands;
* ``linear``: ln R_e and ln n, and the shape in its plane of standard-normal coordinates, are linear
  in the logarithm of the wavelength (after Vika et al. 2013, https://arxiv.org/abs/1307.4996);
* ``free``: each band's own.

The centre is shared by all bands. The magnitude of each band and each free structure have the prior
of a single profile. For ``linear``, the structure at the mean logarithm of the wavelength has that
prior, and the changes between the bluest and the reddest band are normal with the standard
deviations in :data:`CHANGES`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor

from deeplegato_pp.errors import ConfigError
from deeplegato_pp.scene.blocks import W_MAX, Block
from deeplegato_pp.scene.components import Coordinates, flux_of
from deeplegato_pp.scene.parameters import (
    AXIS_RATIO,
    MAGNITUDE,
    NUM_PARAMETERS,
    POSITION_ANGLE,
    RADIUS,
    SERSIC_INDEX,
)
from deeplegato_pp.scene.prior import PriorBox
from deeplegato_pp.scene.stamps import REFERENCE_PIXEL_SCALE

STRUCTURES = ("shared", "linear", "free")
"""How the structure of a galaxy may depend on the band."""

STRUCTURE = (RADIUS, SERSIC_INDEX, AXIS_RATIO, POSITION_ANGLE)
"""Columns of the parameters that describe the structure."""

CHANGES = (0.5, 0.7, 0.5, 0.5)
"""Prior standard deviations, for ``linear``, of the changes between the bluest and the reddest
band: of ln R_e, of ln n, and of the two shape coordinates."""


_UNMOVED = ("magnitude", "effective_radius", "sersic_index", "axis_ratio")


@dataclass(frozen=True)
class BandFrame:
    """Linear map from the pixels of the frame to those of a band's stamp.

    Attributes:
        matrix: Matrix that maps the centre from the frame's stamp to the band's, rows of (x, y).
        offset: Position of the frame's origin (its stamp's centre) from the centre of the band's
            stamp. [px of the band's stamp]
        size: Side of one pixel of the frame. [px of the band's stamp]
        rotation: Angle added to position angles, counter-clockwise. [deg]
        parity: 1, or -1 if the band's stamp is mirrored with respect to the frame.
    """

    matrix: tuple[tuple[float, float], tuple[float, float]] = ((1.0, 0.0), (0.0, 1.0))
    offset: tuple[float, float] = (0.0, 0.0)
    size: float = 1.0
    rotation: float = 0.0
    parity: int = 1

    @classmethod
    def of_matrix(
        cls,
        matrix: tuple[tuple[float, float], tuple[float, float]],
        offset: tuple[float, float],
        size: float,
    ) -> BandFrame:
        """Returns the frame of a linear map; its nearest rotation changes the position angle.

        Example:
            >>> quarter = BandFrame.of_matrix(((0.0, -1.0), (1.0, 0.0)), (0.0, 0.0), 1.0)
            >>> quarter.rotation, quarter.parity
            (90.0, 1)
        """
        (a, b), (c, d) = matrix
        parity = 1 if a * d - b * c > 0 else -1
        turned = math.atan2(parity * c - b, parity * a + d)  # rotation once x is mirrored back
        return cls(matrix, offset, size, math.degrees(turned), parity)

    def center(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the positions of points of the frame's stamp on the band's stamp."""
        (a, b), (c, d) = self.matrix
        return a * x + b * y + self.offset[0], c * x + d * y + self.offset[1]

    def back(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the positions of points of the band's stamp on the frame's stamp."""
        (a, b), (c, d) = self.matrix
        x, y, area = x - self.offset[0], y - self.offset[1], a * d - b * c
        return (d * x - b * y) / area, (a * y - c * x) / area

    def angle(self, angle: Tensor) -> Tensor:
        """Returns position angles on the band's stamp, in [0, 180). [deg]"""
        return torch.remainder(self.parity * angle + self.rotation, 180.0)

    def of_band(self, values: Float[Tensor, "s 7"]) -> Float[Tensor, "s 7"]:
        """Converts parameters in the frame to parameters on the band's stamp, (S, 7)."""
        m, radius, n, q, angle, x, y = values.unbind(-1)
        there = (*self.center(x, y),)
        return torch.stack([m, self.size * radius, n, q, self.angle(angle), *there], -1)

    def in_frame(self, values: Float[Tensor, "s 7"]) -> Float[Tensor, "s 7"]:
        """Converts parameters on the band's stamp to parameters in the frame, (S, 7)."""
        m, radius, n, q, angle, x, y = values.unbind(-1)
        turned = torch.remainder(self.parity * (angle - self.rotation), 180.0)
        return torch.stack([m, radius / self.size, n, q, turned, *self.back(x, y)], -1)

    def box(self, box: PriorBox) -> PriorBox:
        """Returns a prior box on the band's stamp that encloses the frame's prior box."""
        edges = [torch.tensor(e, dtype=torch.float64) for e in (box.center_x, box.center_y)]
        x, y = (c.tolist() for c in self.center(*torch.cartesian_prod(*edges).T))
        moved = box.shifted(radius_factor=self.size)
        bounds = {name: list(getattr(moved, name)) for name in _UNMOVED}
        return PriorBox.from_mapping(
            bounds | {"center_x": (min(x), max(x)), "center_y": (min(y), max(y))}
        )


class BandCoordinates(Coordinates):
    """Coordinates of a galaxy in several bands.

    The first seven coordinates are those of a single profile in the first band (for ``linear``, at
    the mean logarithm of the wavelength). They are followed by the magnitudes of the other bands,
    and then by the structure of the other bands (``free``) or its changes (``linear``).

    Args:
        box: Prior box of the frame at the reference instrument; the magnitudes of each band refer
            to its own background sigma.
        frames: Frame of each band; the first is the identity.
        structure: One of :data:`STRUCTURES`.
        wavelengths: Wavelength of each band, in any common unit; needed for ``linear`` only.

    Raises:
        ConfigError: If the structure is unknown, or if ``linear`` lacks one positive wavelength per
            band with at least two of them different.

    Example:
        >>> frames = [BandFrame()] * 4
        >>> waves = [0.4, 0.5, 0.6, 0.8]
        >>> [BandCoordinates(PriorBox(), frames, s, waves).dim for s in STRUCTURES]
        [10, 14, 22]
    """

    def __init__(
        self,
        box: PriorBox,
        frames: Sequence[BandFrame],
        structure: str = "shared",
        wavelengths: Sequence[float] | None = None,
    ) -> None:
        if structure not in STRUCTURES:
            raise ConfigError(
                f"unknown structure {structure!r} of bands, expected one of "
                f"{', '.join(STRUCTURES)}."
            )
        self.box, self.frames, self.structure = box, tuple(frames), structure
        self.wavelengths = wavelengths
        self.positions = (
            log_positions(wavelengths, len(self.frames)) if structure == "linear" else None
        )
        bands = len(self.frames)
        self._further = NUM_PARAMETERS + bands - 1
        more = {"shared": 0, "linear": len(STRUCTURE), "free": (bands - 1) * len(STRUCTURE)}
        self.dim = self._further + more[structure]

    def in_box(self, box: PriorBox) -> Self:
        """Returns the same galaxy with another prior box of the frame."""
        return type(self)(box, self.frames, self.structure, self.wavelengths)

    def project(self, w: Float[Tensor, "*b 7"]) -> Float[Tensor, "*b f"]:
        """Returns the coordinates of a galaxy whose parameters are the same in every band."""
        return self.combine(w[..., None, :].expand(*w.shape[:-1], len(self.frames), NUM_PARAMETERS))

    def combine(
        self, w: Float[Tensor, "*b k 7"], precision: Float[Tensor, "*b k 7"] | None = None
    ) -> Float[Tensor, "*b f"]:
        """Combines single-band coordinates; shared parameters are the weighted means over bands.

        Args:
            w: Coordinates of a single profile in the frame for each band, with shape (*, K, 7).
            precision: Weights of the means; equal weights if None.
        """
        weight = torch.ones_like(w) if precision is None else precision
        mean = (weight * w).sum(-2) / weight.sum(-2)
        first = mean.clone()
        first[..., MAGNITUDE] = w[..., 0, MAGNITUDE]
        parts = [first, w[..., 1:, MAGNITUDE]]
        if self.structure == "free":
            parts[0][..., STRUCTURE] = w[..., 0, :][..., STRUCTURE]
            parts.append(w[..., 1:, :][..., STRUCTURE].flatten(-2))
        elif self.structure == "linear":
            parts.append(torch.zeros_like(first[..., : len(STRUCTURE)]))
        return torch.cat(parts, -1)

    def values(self, u: Float[Tensor, "s f"], band: int) -> Float[Tensor, "s 7"]:
        """Returns a band's parameters in the frame, at the reference instrument, (S, 7)."""
        w = u[..., :NUM_PARAMETERS].double().clone()
        if band:
            w[..., MAGNITUDE] = u[..., NUM_PARAMETERS + band - 1]
        if self.structure == "free" and band:
            start = self._further + (band - 1) * len(STRUCTURE)
            w[..., STRUCTURE] = u[..., start : start + len(STRUCTURE)].double()
        if self.positions is None:
            return self.box.to_physical(w)
        change = self.positions[band] * u[..., self._further :].double()
        change = change * torch.tensor(CHANGES, dtype=torch.float64)
        w[..., AXIS_RATIO] += change[..., 2]
        w[..., POSITION_ANGLE] += change[..., 3]
        values = self.box.to_physical(w)
        for column, amount in ((RADIUS, change[..., 0]), (SERSIC_INDEX, change[..., 1])):
            bounds = (self.box.effective_radius, self.box.sersic_index)[column - RADIUS]
            values[..., column] = (values[..., column] * amount.exp()).clamp(*bounds)
        return values

    def log_jacobian(self, u: Float[Tensor, "s f"]) -> Float[Tensor, " s"]:
        """Returns ln |det du/dp| for magnitudes, structures and centre.

        Changes of ``linear`` stay in units of their prior standard deviations.
        """
        w = u[..., :NUM_PARAMETERS].double()
        total = self.box.log_jacobian(w)
        (magnitude, _), (radius, _), (index, _), (shape, _), *_ = self.box.blocks
        start = NUM_PARAMETERS
        for _ in self.frames[1:]:
            total = total + _log_jacobian(magnitude, u[..., start : start + 1])
            start += 1
        if self.structure == "free":
            for _ in self.frames[1:]:
                for block in (radius, index, shape):
                    total = total + _log_jacobian(block, u[..., start : start + block.dim])
                    start += block.dim
        return total

    def view(self, band: int) -> BandView:
        """Returns the view of one band as a function of the coordinates of all bands."""
        return BandView(self, band)

    def profiles(self, u: Float[Tensor, "s f"]) -> Float[Tensor, "1 7 s"]:
        """Returns the renderer's columns on the first band's stamp, with shape (1, 7, S)."""
        return self.view(0).profiles(u)


class BandView(Coordinates):
    """One band of a multi-band galaxy, as a function of the coordinates of all bands.

    Args:
        whole: Coordinates of the galaxy in all bands.
        band: Index of the band.
    """

    def __init__(self, whole: BandCoordinates, band: int) -> None:
        self.whole, self.band = whole, band
        self.box, self.dim = whole.box, whole.dim

    def project(self, w: Float[Tensor, "*b 7"]) -> Float[Tensor, "*b f"]:
        """Returns the coordinates of a galaxy whose parameters are the same in every band."""
        return self.whole.project(w)

    def in_box(self, box: PriorBox) -> Self:
        """Returns the same band with another prior box of the frame."""
        return type(self)(self.whole.in_box(box), self.band)

    def on_stamp(self, u: Float[Tensor, "s f"]) -> Float[Tensor, "s 7"]:
        """Returns the parameters on the band's own stamp, at the reference instrument, (S, 7)."""
        return self.whole.frames[self.band].of_band(self.whole.values(u, self.band))

    def profiles(self, u: Float[Tensor, "s f"]) -> Float[Tensor, "1 7 s"]:
        """Returns the renderer's columns on the band's stamp, in detector units, (1, 7, S)."""
        magnitude, radius, *rest = self.on_stamp(u).unbind(-1)
        return torch.stack([flux_of(magnitude), radius / REFERENCE_PIXEL_SCALE, *rest])[None]


def log_positions(wavelengths: Sequence[float] | None, bands: int) -> tuple[float, ...]:
    """Returns ln(wavelength) minus its mean, in units of its range.

    Raises:
        ConfigError: If there is not one positive wavelength for each band, or all are the same.

    Example:
        >>> [round(x, 2) for x in log_positions([1.0, 2.0, 4.0], 3)]
        [-0.5, 0.0, 0.5]
    """
    given = [] if wavelengths is None else [float(w) for w in wavelengths]
    if len(given) != bands:
        raise ConfigError(
            f"a structure linear in the wavelength needs one wavelength for each of {bands} bands, "
            f"got {len(given)}. Give them in the order of the bands (wavelengths=, --wavelengths)."
        )
    if not all(math.isfinite(w) and w > 0 for w in given) or len(set(given)) < 2:
        raise ConfigError(
            f"wavelengths must be positive, and at least two of them different, got {given}."
        )
    logs = [math.log(w) for w in given]
    mean, width = sum(logs) / bands, max(logs) - min(logs)
    return tuple((x - mean) / width for x in logs)


def to_box(box: PriorBox, values: Float[Tensor, "s 7"]) -> Float[Tensor, "s 7"]:
    """Returns the coordinates of parameters in a box, (S, 7); values outside map to its edge."""
    parts = [block.to_normal(values[..., list(columns)]) for block, columns in box.blocks]
    return torch.cat(parts, -1).clamp(-W_MAX, W_MAX)


def _log_jacobian(block: Block, w: Tensor) -> Tensor:
    w = w.double()
    return block.log_jacobian(w, block.to_physical(w))
