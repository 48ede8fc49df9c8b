"""Errors of the PSFs' widths, marginalised as templates of unknown amplitude."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from deeplegato_pp.checks import check_psf_error


class PsfWidths:
    """Relative errors of the PSF widths of a batch of galaxies, and the images' changes with them.

    An error of the PSF's width adds one template of unknown amplitude to the data, like the sky.
    The template is computed once, at a point near the mode, and used everywhere: models that fit
    the data look alike, and for a Gaussian PSF the change of the image depends on the convolved
    image alone.

    Attributes:
        error: Relative error of each PSF's width, one sigma, with shape (B,).
        share: Part of the error that is fitted, in (0, 1], with shape (B,). It is less than 1 where
            the residuals have structure to which the template would be fitted instead of to an
            error of the PSF; honest widths include the rest.
        slope: Derivative of each galaxy's image with respect to ln(PSF width), with shape
            (B, N, N).
        points: Point in coordinates at which each galaxy's slope was computed.
    """

    def __init__(self, error: Sequence[float], like: Float[Tensor, "b n n"]) -> None:
        """Takes errors whose effect on the images is not yet known.

        Args:
            error: Relative error of each PSF's width.
            like: Images, whose shape, dtype and device the slopes have.

        Raises:
            RangeError: If an error lies outside [0, 0.5).
        """
        checked = [check_psf_error(e) for e in error]
        self.error = torch.tensor(checked, dtype=like.dtype).to(like.device)
        self.share = torch.ones_like(self.error)
        self.slope = torch.zeros_like(like)
        self.points: dict[int, Tensor] = {}

    @property
    def uncertain(self) -> Bool[Tensor, " b"]:
        """Which galaxies' PSFs have an uncertain width."""
        return self.error > 0

    @property
    def fitted(self) -> Float[Tensor, " b"]:
        """Relative errors that are fitted: `error` times `share`."""
        return self.error * self.share

    def of(self, rows: Sequence[int], *, share: bool) -> PsfWidths:
        """Returns copies of some rows.

        Args:
            rows: Galaxy indices.
            share: Whether the fitted parts are kept too; they are 1 if not.
        """
        index = list(rows)
        found = copy.copy(self)
        # Indexing with a list copies.
        found.error, found.slope = self.error[index], self.slope[index]
        found.share = self.share[index] if share else torch.ones_like(found.error)
        kept = {k: self.points.get(i) for k, i in enumerate(index)}
        found.points = {k: u for k, u in kept.items() if u is not None}
        return found

    def with_error(self, error: float) -> PsfWidths:
        """Returns a copy with another error, all of it fitted, that acts where this one does.

        Raises:
            RangeError: If the error lies outside [0, 0.5).
        """
        found = self.of(range(len(self.error)), share=False)
        found.error = torch.full_like(self.error, check_psf_error(error))
        return found

    def set(
        self, rows: Int[Tensor, " r"], slope: Float[Tensor, "r n n"], u: Float[Tensor, "r f"]
    ) -> None:
        """Sets the slopes of some galaxies, and the points at which they were computed."""
        self.slope[rows] = slope
        for row, point in zip(rows.tolist(), u.detach().cpu().clone(), strict=True):
            self.points[row] = point

    def unknown(self, rows: int | Int[Tensor, " r"]) -> list[int]:
        """Returns those of the galaxies whose PSF has an error of unknown effect."""
        index = [rows] if isinstance(rows, int) else rows.tolist()
        uncertain = self.uncertain.tolist()
        return sorted({i for i in index if uncertain[i] and i not in self.points})

    def change(self, rows: int | Int[Tensor, " r"]) -> Float[Tensor, "*r n n"] | None:
        """Returns the change of each image per standard deviation of the fitted error.

        None if the PSFs of all galaxies are known.
        """
        if not bool(self.uncertain.any()):
            return None
        return self.fitted[rows][..., None, None] * self.slope[rows]

    def amplitude_variance(self, row: int, number: int) -> Float[Tensor, " t"]:
        """Returns the variance of the templates' amplitudes in units of that assumed in the fit.

        Args:
            row: Index of the galaxy.
            number: Number of templates T; the PSF's, if there is one, is the last of two.
        """
        found = torch.ones(number).to(self.error)
        found[1:] = self.share[row] ** -2
        return found
