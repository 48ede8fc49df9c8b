"""Noiseless images of a batch of galaxies, each with its own PSF."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from deeplegato_pp.errors import NumericalError
from deeplegato_pp.scene.components import Coordinates, PointSourceCoordinates
from deeplegato_pp.scene.prior import W_MAX
from deeplegato_pp.scene.render.fourier import BAND_FLOOR
from deeplegato_pp.scene.render.point_source import render_points
from deeplegato_pp.scene.render.renderer import Bands, render_sersic

NEGLIGIBLE_LIGHT = 1e-4
"""Light of periodic copies that is not subtracted, relative to the noise of the best pixel.

This is an upper bound: the neglected light is at most a tenth of it and changes ln L by < 0.01.
"""

_STEP = {torch.float64: 1e-5, torch.float32: 1e-3}
"""Step of the finite differences in standard-normal coordinates, by dtype."""


_KEPT = 16
"""Number of galaxies whose PSF transforms are cached."""

_TRANSFORMS = 2**23
"""Maximum number of values in all PSF transforms of one call."""

_REACHES = 8
"""Number of classes per cycle/px of the PSFs' highest frequencies; the cost of a call is set by its
PSF with the highest frequencies."""


@dataclass(frozen=True, eq=False)
class Group:
    """Galaxies whose images can be rendered in one call, because their PSFs are of one kind.

    Attributes:
        psf: PSFs, in the precision that they need, with shape (P, Py, Px).
        oversampling: PSF samples per pixel.
        includes_pixel: Whether the PSFs include the detector's pixel.
        place: Index of the PSF for every galaxy; -1 for galaxies of other groups.
        negligible: Light of periodic copies that is not subtracted, with shape (P,). [flux per
            pixel]
        bands: Cached transforms of the PSFs.
    """

    psf: Float[Tensor, "p py px"]
    oversampling: int
    includes_pixel: bool
    place: Int[Tensor, " b"]
    negligible: Float[Tensor, " p"]
    bands: Bands = field(default_factory=dict)


class ModelImages:
    """Renders galaxies as functions of their coordinates.

    Args:
        coordinates: Hypothesis.
        psfs: PSF of each galaxy as observed, with shape (Py, Px), odd-sided.
        oversampling: PSF samples per pixel, one per galaxy.
        includes_pixel: Whether the PSF includes the detector's pixel, one per galaxy.
        size: Side of the stamps. [px]
        faintest: Noise of each galaxy's best pixel, with shape (B,). [background sigma]
    """

    def __init__(
        self,
        coordinates: Coordinates,
        psfs: list[Tensor],
        oversampling: list[int],
        includes_pixel: list[bool],
        size: int,
        faintest: Float[Tensor, " b"],
    ) -> None:
        self.coordinates, self.psfs, self.size = coordinates, psfs, size
        self.oversampling, self.includes_pixel = oversampling, includes_pixel
        self.negligible = (NEGLIGIBLE_LIGHT * faintest.double()).tolist()
        self._kept_bands: dict[tuple[int, torch.dtype], Bands] = {}
        self._kept_groups: dict[tuple[bool, ...], list[Group]] = {}

    def of_one(self, row: int, u: Float[Tensor, "s f"], dtype: torch.dtype) -> Tensor:
        """Returns images of one galaxy at many points, with shape (S, N, N)."""
        columns = self.columns(u, self.psfs[row].device)
        number = len(columns)
        group = Group(
            self.psfs[row],
            self.oversampling[row],
            self.includes_pixel[row],
            torch.empty(0, dtype=torch.long),
            torch.tensor(self.negligible[row]),
            self._bands(row, dtype),
        )
        images = self._render(group, side_by_side(columns).to(dtype), None)
        return images if number == 1 else images.unflatten(0, (number, -1)).sum(0)

    def of_many(
        self,
        rows: Int[Tensor, " r"],
        u: Float[Tensor, "r f"],
        double: Bool[Tensor, " b"],
        by_width: bool = False,
    ) -> Float[Tensor, "r n n"]:
        """Returns images of many galaxies, each at its own point, in as few calls as possible.

        Args:
            rows: Galaxy indices, with shape (R,); they may repeat.
            u: Points, with shape (R, F).
            double: Whether each galaxy is rendered in float64; the others use float32.
            by_width: Return the derivatives with respect to ln(PSF width) instead of the images.

        Returns:
            Images, with shape (R, N, N), float64.
        """
        device = self.psfs[0].device
        profiles = self.columns(u, device)
        number, columns = len(profiles), side_by_side(profiles)
        rows = rows.repeat(number)
        images = torch.empty(len(rows), self.size, self.size, dtype=torch.float64, device=device)
        for group, at in self.calls(rows, double):
            part = columns[:, at].to(group.psf.dtype)
            images[at] = self._render(group, part, group.place[rows[at]], by_width).double()
        return images if number == 1 else images.unflatten(0, (number, -1)).sum(0)

    def calls(
        self, rows: Int[Tensor, " r"], double: Bool[Tensor, " b"]
    ) -> list[tuple[Group, Tensor]]:
        """Splits rows into groups that can be rendered in one call; yields group and positions.

        Args:
            rows: Galaxy indices, with shape (R,).
            double: Whether each galaxy is rendered in float64; the others use float32.
        """
        found = [
            (group, (group.place[rows] >= 0).nonzero()[:, 0]) for group in self._groups(double)
        ]
        return [(group, at) for group, at in found if len(at)]

    def of_steps(
        self, row: int, u: Float[Tensor, "k f"], dtype: torch.dtype
    ) -> Float[Tensor, "k n n"]:
        """Returns images at points, (K, N, N); those that differ from the first in flux are scaled.

        Scaling avoids a render.
        """
        profiles = self.coordinates.profiles(u.clamp(-W_MAX, W_MAX))
        flux = profiles[:, 0].sum(0)
        form = torch.cat([profiles[:, 1:].flatten(0, 1), (profiles[:, 0] / flux)[1:]])
        new = (form != form[:, :1]).any(0)
        new[0] = True
        rendered = self.of_one(row, u[new], dtype)
        images = rendered.new_empty(len(u), *rendered.shape[1:])
        images[new] = rendered
        scale = (flux / flux[0]).to(images)[~new]
        images[~new] = scale[:, None, None] * images[0]
        return images

    def derivatives(
        self, row: int, u: Float[Tensor, " f"], dtype: torch.dtype = torch.float64
    ) -> tuple[Float[Tensor, "n n"], Float[Tensor, "f p"]]:
        """Returns one galaxy's image at a point, and its derivatives.

        The derivatives are forward differences: on a CPU, six more renders (a change of flux only
        scales the image) cost a third of forward-mode differentiation, and every branch of the
        renderer is supported.

        Args:
            row: Galaxy index.
            u: Point, with shape (F,).
            dtype: Dtype in which the derivatives' images are rendered. With float32 a wider step is
                used; the derivatives are accurate to about 1e-3, at half the cost.

        Returns:
            The image (N, N) and its derivatives (F, N * N), both float64.

        Raises:
            NumericalError: If a derivative is not finite.
        """
        dim = self.coordinates.dim
        steps = torch.cat([u.new_zeros(1, dim), _STEP[dtype] * torch.eye(dim).to(u)])
        # Steps point towards the origin, so that they stay inside the coordinates' range.
        steps = steps * torch.where(u > 0, -1.0, 1.0)
        with torch.no_grad():
            images = self.of_steps(row, u + steps, dtype).double()
            derivatives = (images[1:] - images[0]).flatten(1) / steps[1:].sum(-1, keepdim=True)
            image = images[0]
            if dtype != torch.float64:
                image = self.of_one(row, u[None], torch.float64)[0]
        if not bool(torch.isfinite(derivatives).all()):
            raise NumericalError(
                f"The image of galaxy {row} has no finite derivative at {u.tolist()}."
            )
        return image, derivatives

    def columns(self, u: Float[Tensor, "s f"], device: torch.device) -> Float[Tensor, "c 7 s"]:
        """Returns the renderer's columns of every profile, in detector units."""
        return self.coordinates.profiles(u.double().clamp(-W_MAX, W_MAX).to(device))

    def _render(
        self, group: Group, columns: Tensor, psf_index: Tensor | None, by_width: bool = False
    ) -> Tensor:
        """Renders a group's galaxies; a single galaxy if there is no index."""
        flux, radius, n, q, angle, x, y = columns
        options = {
            "oversampling": group.oversampling,
            "psf_includes_pixel": group.includes_pixel,
            "by_width": by_width,
        }
        if not isinstance(self.coordinates, PointSourceCoordinates):
            return render_sersic(
                flux,
                radius,
                n,
                q,
                angle,
                x,
                y,
                group.psf,
                self.size,
                psf_index=psf_index,
                negligible=(
                    float(group.negligible)
                    if psf_index is None
                    else group.negligible[psf_index].to(flux)
                ),
                bands=group.bands,
                **options,  # type: ignore[arg-type]
            )
        return render_points(  # no profile to transform
            flux,
            x,
            y,
            group.psf,
            self.size,
            psf_index=psf_index,
            bands=group.bands,
            **options,  # type: ignore[arg-type]
        )

    def _bands(self, row: int, dtype: torch.dtype) -> Bands:
        """Returns the transforms of one galaxy's PSF; those of the last few galaxies are cached."""
        bands = self._kept_bands.pop((row, dtype), {})
        self._kept_bands[row, dtype] = bands
        while len(self._kept_bands) > _KEPT:
            del self._kept_bands[next(iter(self._kept_bands))]
        return bands

    def _groups(self, double: Tensor) -> list[Group]:
        """Groups galaxies by shape and kind of their PSFs and by the precision that they need."""
        key = tuple(double.tolist())
        if key not in self._kept_groups:
            members: dict[tuple[object, ...], list[int]] = {}
            for i, psf in enumerate(self.psfs):
                s = self.oversampling[i]
                kind = (tuple(psf.shape), s, self.includes_pixel[i], key[i], _reach(psf, s))
                members.setdefault(kind, []).append(i)
            self._kept_groups[key] = [
                self._group(part, key[part[0]])
                for rows in members.values()
                for part in self._in_bounds(rows)
            ]
        return self._kept_groups[key]

    def _in_bounds(self, rows: list[int]) -> list[list[int]]:
        """Splits galaxies of one kind into parts whose PSF transforms fit in memory."""
        largest = (3 * self.size * self.oversampling[rows[0]]) ** 2
        count = max(1, _TRANSFORMS // largest)
        return [rows[i : i + count] for i in range(0, len(rows), count)]

    def _group(self, rows: list[int], double: bool) -> Group:
        psf = torch.stack([self.psfs[i] for i in rows])
        place = torch.full((len(self.psfs),), -1)
        place[rows] = torch.arange(len(rows))
        return Group(
            psf.to(torch.float64 if double else torch.float32),
            self.oversampling[rows[0]],
            self.includes_pixel[rows[0]],
            place.to(psf.device),
            torch.tensor([self.negligible[i] for i in rows]).to(psf.device),
        )


def side_by_side(profiles: Float[Tensor, "c 7 s"]) -> Float[Tensor, "7 cs"]:
    """Returns the columns of all profiles concatenated, to be rendered in one call."""
    return profiles.transpose(0, 1).flatten(1)


def _reach(psf: Tensor, oversampling: int) -> int:
    """Returns the class of the highest frequency of a PSF, along either axis."""
    side = 2 * (max(psf.shape) // 2 + 1)
    size = torch.fft.rfft2(psf, s=(side, side)).abs()
    reached = size > BAND_FLOOR[torch.float32] * size[0, 0]
    rows = reached.any(1).nonzero()[:, 0]
    highest = max(int(torch.minimum(rows, side - rows).max()), int(reached.any(0).nonzero().max()))
    return -(-_REACHES * oversampling * highest // side)
