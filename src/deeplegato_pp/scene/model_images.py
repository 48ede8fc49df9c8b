"""Noiseless images of a batch of galaxies, each under its own PSF."""

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
"""Light of periodic copies that is not worth subtracting, over the noise of the best pixel.

It is a bound; what is left out is a tenth of it or less, and changes ln L by less than 0.01.
"""

_STEP = {torch.float64: 1e-5, torch.float32: 1e-3}
"""Step of the finite differences, in coordinates whose prior is one wide, by precision."""


_KEPT = 16
"""Galaxies whose PSFs' transforms are kept: those that are refined together."""

_TRANSFORMS = 2**23
"""Numbers that the transforms of the PSFs of one call may have, all together."""

_REACHES = 8
"""Classes per cycle and pixel of the frequencies that PSFs reach: a call costs what its
widest-reaching one asks for."""


@dataclass(frozen=True, eq=False)
class Group:
    """Galaxies whose images can be rendered in one call: PSFs of one kind.

    Attributes:
        psf: Their PSFs, in the precision that they need, with shape (P, Py, Px).
        oversampling: PSF samples per pixel.
        includes_pixel: Whether the pixel is in the PSF already.
        place: Of every galaxy, the number of its PSF; -1 for those of other groups.
        negligible: Light of periodic copies that is not worth subtracting, with shape (P,). [flux
            per pixel]
        bands: The PSFs' transforms, once they are known.
    """

    psf: Float[Tensor, "p py px"]
    oversampling: int
    includes_pixel: bool
    place: Int[Tensor, " b"]
    negligible: Float[Tensor, " p"]
    bands: Bands = field(default_factory=dict)


class ModelImages:
    """What galaxies look like at coordinates.

    Args:
        coordinates: Hypothesis.
        psfs: PSF of each galaxy as observed, (Py, Px), odd-sided.
        oversampling: PSF samples per pixel, one per galaxy.
        includes_pixel: Whether the detector's pixel is in the PSF, one per galaxy.
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
        """Returns images of many galaxies, each at its own point, in as few calls as can be.

        Args:
            rows: Galaxies; one may come more than once. Shape (R,).
            u: Points, with shape (R, F).
            double: Which of all galaxies are rendered in float64, the others in float32.
            by_width: Return the images' derivatives with the logarithm of the PSF's width instead.

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
        """Returns what of some rows can be rendered in one call: groups, and places of rows.

        Args:
            rows: Galaxies, with shape (R,).
            double: Which of all galaxies are rendered in float64, the others in float32.
        """
        found = [
            (group, (group.place[rows] >= 0).nonzero()[:, 0]) for group in self._groups(double)
        ]
        return [(group, at) for group, at in found if len(at)]

    def of_steps(
        self, row: int, u: Float[Tensor, "k f"], dtype: torch.dtype
    ) -> Float[Tensor, "k n n"]:
        """Images at points of which some differ from the first in nothing but the flux, (K, N, N).

        Those are scaled, not rendered.
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
        """Returns one galaxy's image at a point, and its derivatives there.

        They come from forward differences: on a CPU six more renders (the flux only scales the
        image) cost a third of forward-mode differentiation, and every branch of the renderer is
        served.

        Args:
            row: Galaxy.
            u: Point, with shape (F,).
            dtype: What the derivatives' images are rendered in. Of float32 a wider step leaves the
                derivatives good to about 1e-3, at half of the cost.

        Returns:
            The image (N, N) and its derivatives (F, N * N), both float64.

        Raises:
            NumericalError: If a derivative is not finite.
        """
        dim = self.coordinates.dim
        steps = torch.cat([u.new_zeros(1, dim), _STEP[dtype] * torch.eye(dim).to(u)])
        # Steps point to the origin, so none leaves the coordinates' range.
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
        """Images of a group's galaxies; of one galaxy if there is no index."""
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
        """The transforms of one galaxy's PSF; those of the last few galaxies are kept."""
        bands = self._kept_bands.pop((row, dtype), {})
        self._kept_bands[row, dtype] = bands
        while len(self._kept_bands) > _KEPT:
            del self._kept_bands[next(iter(self._kept_bands))]
        return bands

    def _groups(self, double: Tensor) -> list[Group]:
        """Galaxies by the shape and kind of their PSFs and the precision that they need."""
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
        """Galaxies of one kind in parts whose PSFs' transforms fit in memory."""
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
    """Returns the columns of all profiles one after another, to be rendered in one call."""
    return profiles.transpose(0, 1).flatten(1)


def _reach(psf: Tensor, oversampling: int) -> int:
    """The class of the highest frequency that a PSF reaches, along either axis."""
    side = 2 * (max(psf.shape) // 2 + 1)
    size = torch.fft.rfft2(psf, s=(side, side)).abs()
    reached = size > BAND_FLOOR[torch.float32] * size[0, 0]
    rows = reached.any(1).nonzero()[:, 0]
    highest = max(int(torch.minimum(rows, side - rows).max()), int(reached.any(0).nonzero().max()))
    return -(-_REACHES * oversampling * highest // side)
