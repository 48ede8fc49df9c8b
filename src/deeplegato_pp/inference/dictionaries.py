"""Results as plain dictionaries, text and a figure."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from deeplegato_pp.errors import InputError
from deeplegato_pp.inference import results
from deeplegato_pp.inference.images import Image, as_list, is_single, with_psf
from deeplegato_pp.inference.posterior.posterior import Posterior


class DictionaryInterface(ABC):
    """Dictionary interface of a predictor: `predict`, `predict_batch` and printing of results."""

    @abstractmethod
    def posterior(
        self,
        observations: Image | Sequence[Image],
        num_samples: int = 1000,
        seed: int | Sequence[int] = 0,
        batch_size: int = 64,
    ) -> Posterior:
        """Returns the posterior of one galaxy or of several."""

    def predict(
        self,
        image: Image | Sequence[Image],
        psf: Any = None,
        num_samples: int = 1000,
        return_samples: bool = False,
        seed: int = 0,
    ) -> dict[str, Any]:
        """Measures one galaxy, or several, and returns plain numbers.

        Args:
            image: Observation, FITS file, or a bare image with shape (H, W). For a list, or an
                array (B, H, W) or (B, 1, H, W), the result is that of :meth:`predict_batch`.
            psf: Image of the PSF for a bare image; None: the reference PSF, flagged.
            num_samples: Number of posterior draws.
            return_samples: Whether to include the draws.
            seed: Random seed of the draws.

        Returns:
            ``params``: for each parameter a dictionary of ``value``, ``std``, ``ci_lower``,
            ``ci_upper`` (the central 95 %) and ``unit``. ``mean``, ``std``, ``ci_lower``,
            ``ci_upper``: the same as arrays (7,). ``flags`` (names), ``quality`` and
            ``posterior`` (the whole :class:`Posterior`). ``samples`` (S, 7) if requested.

        Raises:
            InputError: If the galaxy cannot be measured, or a PSF is given with an observation.
        """
        if not is_single(image):
            return self.predict_batch(
                cast(Sequence[Image], image),
                psf,
                num_samples,
                return_samples=return_samples,
                seed=seed,
            )
        posterior = self.posterior(with_psf(cast(Image, image), psf), num_samples, seed)
        return results.as_dictionary(posterior, return_samples)

    def predict_batch(
        self,
        images: Sequence[Image],
        psfs: Any = None,
        num_samples: int = 1000,
        batch_size: int = 64,
        return_samples: bool = False,
        seed: int = 0,
    ) -> dict[str, Any]:
        """Measures many galaxies; like :meth:`predict`, with arrays instead of numbers.

        Args:
            images: Observations or arrays (H, W), or one array (B, H, W) or (B, 1, H, W).
            psfs: A PSF for all, or one per bare image.
            num_samples: Draws per galaxy.
            batch_size: Number of galaxies per forward pass.
            return_samples: Whether to include the draws.
            seed: Random seed of the draws.

        Returns:
            The dictionary of :meth:`predict`; each ``value``, ``std``, ... has shape (B,), each
            array (B, 7). NaN for a galaxy that could not be measured.

        Raises:
            InputError: If the number of PSFs differs from that of images.
        """
        images = as_list(images)
        per_image = [psfs] * len(images) if psfs is None or np.ndim(psfs) == 2 else list(psfs)
        if len(per_image) != len(images):
            raise InputError(
                f"{len(images)} images came with {len(per_image)} PSFs. Give one PSF for all, or "
                "one per image."
            )
        items = [with_psf(image, psf) for image, psf in zip(images, per_image, strict=True)]
        posterior = self.posterior(items, num_samples, seed, batch_size)
        return results.as_dictionary(posterior, return_samples)

    @staticmethod
    def print_results(result: dict[str, Any]) -> None:
        """Prints the result of :meth:`predict`, one line per parameter."""
        sys.stdout.write(results.as_text(result))

    @staticmethod
    def plot_posterior(
        result: Posterior | dict[str, Any], save_path: str | Path | None = None
    ) -> Any:
        """Plots image, model, residual and the corner plot of one galaxy.

        Args:
            result: A single posterior, or the result of :meth:`predict`.
            save_path: Output file; its suffix selects the format.

        Returns:
            The ``matplotlib.figure.Figure``.

        Raises:
            InputError: If the result contains several galaxies, or none.
        """
        from deeplegato_pp.inference.posterior.plots import plot_posterior

        posterior = result["posterior"] if isinstance(result, dict) else result
        return plot_posterior(posterior, save_path)
