"""A network that knows the answer: Gaussian draws about given parameters, in the coordinates w."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from deeplegato_pp.errors import NumericalError
from deeplegato_pp.scene.prior import PriorBox
from deeplegato_pp.scene.stamps import StampBatch


class FakeModel(torch.nn.Module):
    """Same interface as `DeepLeGAToPP`; every galaxy has the posterior N(center, width^2) in w.

    Args:
        params: Parameters at the reference instrument, with shape (7,).
        width: Standard deviation in w.
    """

    image_size = 128

    def __init__(self, params: Tensor, width: float = 0.02) -> None:
        super().__init__()
        self.prior = PriorBox()
        self.card: dict[str, object] = {"name": "fake", "version": "1"}
        self.center = self.prior.to_normal(params[None])[0]
        self.width = width
        self.batches: list[int] = []

    def encode(self, stamps: StampBatch) -> Tensor:
        """Returns one centre per stamp; refuses stamps marked by a value of 1e6."""
        self.batches.append(len(stamps))
        if bool((stamps.image > 1e6).any()):
            raise NumericalError("a feature is not finite. Mask the pixels that are not.")
        return self.center.expand(len(stamps), 7)

    def sample(self, context: Tensor, num_samples: int, seeds: Tensor) -> tuple[Tensor, Tensor]:
        """Draws by the galaxies' own seeds, as the real network does."""
        z = torch.stack(
            [
                torch.randn(num_samples, 7, generator=torch.Generator().manual_seed(int(s)))
                for s in seeds
            ]
        ).double()
        w = context[:, None] + self.width * z
        return w, self.log_prob(context, w)

    def log_prob(self, context: Tensor, w: Tensor) -> Tensor:
        """The density of those draws."""
        z = (w - context[:, None]) / self.width
        return -0.5 * (z**2).sum(-1) - 7 * (math.log(self.width) + 0.5 * math.log(2 * math.pi))


TRUTH = torch.tensor([21.0, 1.0, 2.5, 0.6, 179.0, 0.5, -1.0], dtype=torch.float64)
"""A galaxy of R_e = 4 px and S/N 370 at the reference instrument."""


def truth_image(size: int = 128, seed: int = 0) -> Tensor:
    """The noisy image of `TRUTH` with noise 1 and the PSF of FWHM 3 px, with shape (N, N)."""
    from deeplegato_pp.data import SersicSimulator
    from deeplegato_pp.observation.effective_psf import moffat_psf

    psf, _ = moffat_psf(3.0)
    model = SersicSimulator(size).render(TRUTH[None], torch.from_numpy(psf))[0]
    noise = torch.randn(size, size, generator=torch.Generator().manual_seed(seed))
    return model + noise
