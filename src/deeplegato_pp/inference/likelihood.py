"""The posterior's density, known up to the evidence, for a batch of observed galaxies.

The likelihood is the simulator's own: `data.renderer` draws the galaxy and `data.noise` judges it;
nothing of either is written here a second time.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from deeplegato_pp.data.noise import log_likelihood, model_variance
from deeplegato_pp.data.renderer import render_sersic
from deeplegato_pp.errors import NumericalError, ShapeError
from deeplegato_pp.inference.coordinates import Coordinates, SersicCoordinates
from deeplegato_pp.prior import W_MAX, PriorBox
from deeplegato_pp.stamps import StampBatch

SINGLE_PRECISION_PEAK = 1000.0
"""Brightest pixel [sigma] up to which draws are rendered in float32.

Against float64, ln L is off by 4e-6 times the brightest pixel in sigmas (n 1 and 4, R_e 2 and
10 px, both noise modes), so its differences are good to 4e-3 at this limit.
"""

_CHUNK_PIXELS = 2**19
"""Pixels of model images held at a time, for one galaxy."""

_STEP = 1e-5
"""Step of the finite differences, in coordinates whose prior is one wide."""


class ExactProblem:
    """The likelihood of a batch of stamps, as a function of coordinates.

    Args:
        stamps: Observed galaxies in detector units (its network PSF is not used).
        psfs: PSF of each galaxy as observed, (Py, Px), odd-sided.
        oversampling: PSF samples per pixel, one per galaxy.
        includes_pixel: Whether the detector's pixel is in the PSF, one per galaxy.
        box: Prior box at the reference instrument.
        coordinates: Hypothesis; a Sérsic galaxy with nothing fixed if None.

    Raises:
        ShapeError: If the lists do not have one entry per stamp.
    """

    def __init__(
        self,
        stamps: StampBatch,
        psfs: list[Tensor],
        oversampling: list[int],
        includes_pixel: list[bool],
        box: PriorBox,
        *,
        coordinates: Coordinates | None = None,
    ) -> None:
        batch = len(stamps)
        for name, entries in (
            ("psfs", psfs),
            ("oversampling", oversampling),
            ("includes_pixel", includes_pixel),
        ):
            if len(entries) != batch:
                raise ShapeError(
                    f"{name} must have one entry per stamp, {batch}, got {len(entries)}."
                )
        self.box = box
        self.coordinates = SersicCoordinates(box) if coordinates is None else coordinates
        # Copies that autograd may use even if the caller works in inference mode.
        with torch.inference_mode(False):
            self.stamps = StampBatch(
                stamps.image.double().clone(),
                stamps.sigma.double().clone(),
                stamps.mask.clone(),
                stamps.psf,
                stamps.gain.double().clone(),
                stamps.sky_sigma.double().clone(),
            )
            self.psfs = [p.to(stamps.image.device).double().clone() for p in psfs]
        self.oversampling = [int(s) for s in oversampling]
        self.includes_pixel = [bool(b) for b in includes_pixel]

    def __len__(self) -> int:
        return len(self.stamps)

    @property
    def size(self) -> int:
        """Side of the stamps. [px]"""
        return self.stamps.image.shape[-1]

    @property
    def num_pixels(self) -> Tensor:
        """Unmasked pixels per galaxy, with shape (B,)."""
        return (~self.stamps.mask).sum((-2, -1))

    def under(self, coordinates: Coordinates) -> ExactProblem:
        """Returns the same data (pixels, mask, sky's prior) under another hypothesis."""
        return ExactProblem(
            self.stamps,
            self.psfs,
            self.oversampling,
            self.includes_pixel,
            self.box,
            coordinates=coordinates,
        )

    def select(self, rows: list[int]) -> ExactProblem:
        """Returns the problem of some of the galaxies."""
        return ExactProblem(
            self.stamps[torch.tensor(rows, dtype=torch.long, device=self.stamps.image.device)],
            [self.psfs[i] for i in rows],
            [self.oversampling[i] for i in rows],
            [self.includes_pixel[i] for i in rows],
            self.box,
            coordinates=self.coordinates,
        )

    def render(self, row: int, u: Float[Tensor, "s f"], dtype: torch.dtype) -> Tensor:
        """Returns noiseless images of one galaxy at many points, with shape (S, N, N)."""
        u = u.double().clamp(-W_MAX, W_MAX).to(self.stamps.image.device)
        columns = self.coordinates.columns(u)
        flux, radius, n, q, angle, x, y = (c.to(dtype) for c in columns)
        return render_sersic(
            flux,
            radius,
            n,
            q,
            angle,
            x,
            y,
            self.psfs[row],
            self.size,
            oversampling=self.oversampling[row],
            psf_includes_pixel=self.includes_pixel[row],
        )

    def needed_dtype(self, row: int) -> torch.dtype:
        """Returns float32 where it provably serves, by :data:`SINGLE_PRECISION_PEAK`."""
        s = self.stamps
        peak = torch.where(s.mask[row], 0.0, s.image[row].abs() / s.sigma[row]).max()
        return torch.float32 if float(peak) <= SINGLE_PRECISION_PEAK else torch.float64

    def log_likelihood_row(
        self, row: int, u: Float[Tensor, "s f"], dtype: torch.dtype | None = None
    ) -> Float[Tensor, " s"]:
        """Returns ln L of one galaxy at many points, float64; see `log_likelihood`."""
        dtype = self.needed_dtype(row) if dtype is None else dtype
        data = self._data(row, dtype)
        chunk = max(1, _CHUNK_PIXELS // self.size**2)
        with torch.no_grad():
            parts = [
                log_likelihood(data[0], self.render(row, part, dtype), *data[1:])
                for part in u.split(chunk)
            ]
        result = torch.cat(parts).cpu()
        if bool(result.isnan().any()):
            bad = u[int(result.isnan().nonzero()[0, 0])].tolist()
            raise NumericalError(
                f"The likelihood of galaxy {row} is NaN at coordinates {bad}. Check its unmasked "
                "pixels, noise and PSF for values that are not finite."
            )
        return result

    def log_likelihood(self, u: Float[Tensor, "b s f"]) -> Float[Tensor, "b s"]:
        """Returns ln L of every galaxy at its own points, in bounded memory.

        Args:
            u: Coordinates, with shape (B, S, F).

        Returns:
            ln L, with shape (B, S), float64.

        Raises:
            NumericalError: If a value is NaN.
        """
        return torch.stack([self.log_likelihood_row(i, u[i]) for i in range(len(self))])

    def linearize(self, row: int, u: Float[Tensor, " f"]) -> tuple[Tensor, Tensor, Tensor]:
        r"""Returns ln L of one galaxy, its gradient and its Fisher information at a point.

        The image's Jacobian comes from forward differences in float64: on a CPU seven more renders
        cost a third of forward-mode differentiation, and every branch of the renderer is served.
        With J the Jacobian, the information of a Gaussian whose variance follows the model is

        .. math:: J^T (V + \tau^2 1 1^T)^{-1} J
            + \tfrac12 \sum \nabla\!\ln V\, \nabla\!\ln V^T,

        the second term, absent for a fixed variance, taken without the sky's (a correction of
        order 1/pixels).

        Args:
            row: Galaxy.
            u: Point, with shape (F,).

        Returns:
            ln L (), its gradient (F,) and the information (F, F), float64.
        """
        dim = self.coordinates.dim
        steps = torch.cat([u.new_zeros(1, dim), _STEP * torch.eye(dim).to(u)])
        # Steps point to the origin, so none leaves the coordinates' range.
        steps = steps * torch.where(u > 0, -1.0, 1.0)
        with torch.no_grad():
            images = self.render(row, u + steps, torch.float64)
            jacobian = (images[1:] - images[0]).flatten(1) / steps[1:].sum(-1, keepdim=True)
        data = self._data(row, torch.float64)
        with torch.inference_mode(False), torch.enable_grad():
            model = images[0].clone().requires_grad_()
            value = log_likelihood(data[0], model, *data[1:])
            (slope,) = torch.autograd.grad(value, model)
        gradient = jacobian @ slope.flatten()
        information = self._information(data, images[0], jacobian)
        if not bool(torch.isfinite(information).all() and torch.isfinite(gradient).all()):
            raise NumericalError(
                f"The image of galaxy {row} has no finite derivative at {u.tolist()}."
            )
        return value.detach().cpu(), gradient.cpu(), information.cpu()

    def chi_square(self, row: int, u: Float[Tensor, "s f"]) -> Float[Tensor, " s"]:
        """Returns the chi-square of one galaxy's images, the sky offset marginalised, (S,).

        Its expectation at the truth is the number of unmasked pixels.
        """
        image, sigma, mask, gain, sky_sigma = self._data(row, torch.float64)
        with torch.no_grad():
            model = self.render(row, u, torch.float64)
        weight = ~mask / model_variance(model, sigma, gain)
        weighted = weight * (image - model)
        tau2 = sky_sigma**2
        sky = tau2 * weighted.sum((-2, -1)) ** 2 / (1.0 + tau2 * weight.sum((-2, -1)))
        return ((weighted * (image - model)).sum((-2, -1)) - sky).cpu()

    def _information(self, data: tuple[Tensor, ...], model: Tensor, jacobian: Tensor) -> Tensor:
        _, sigma, mask, gain, sky_sigma = data
        weight = (~mask / model_variance(model, sigma, gain)).flatten()
        excess = 0.5 * (weight / gain) ** 2 * (model.flatten() > 0)
        information = (jacobian * (weight + excess)) @ jacobian.T
        mean = jacobian @ weight
        tau2 = sky_sigma**2
        return information - tau2 / (1.0 + tau2 * weight.sum()) * torch.outer(mean, mean)

    def _data(self, row: int, dtype: torch.dtype) -> tuple[Tensor, ...]:
        """Image, sigma, mask, gain, sky_sigma of one galaxy, as `log_likelihood` takes them."""
        s = self.stamps
        # A masked pixel may hold anything; it must not reach the arithmetic.
        image = torch.where(s.mask[row], 0.0, s.image[row])
        sigma = torch.where(s.mask[row], 1.0, s.sigma[row])
        return (
            image.to(dtype),
            sigma.to(dtype),
            s.mask[row],
            s.gain[row].to(dtype),
            s.sky_sigma[row],
        )
