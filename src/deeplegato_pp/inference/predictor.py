"""The Predictor: observations in, posteriors out."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor

from deeplegato_pp.errors import DeepLegatoError, InputError, NumericalError, RangeError
from deeplegato_pp.flags import Flag
from deeplegato_pp.inference import binning, instrument, results, verdicts
from deeplegato_pp.inference.images import Image, as_observation, is_single, with_psf
from deeplegato_pp.inference.posterior import Measurement, Posterior
from deeplegato_pp.inference.summary import parameter_summaries
from deeplegato_pp.observation import Observation
from deeplegato_pp.parameters import CENTER_X, CENTER_Y, RADIUS
from deeplegato_pp.preparation import PreparedStamp, prepare
from deeplegato_pp.stamps import StampBatch

if TYPE_CHECKING:
    from deeplegato_pp.models import DeepLeGAToPP

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class _Drawn:
    """A galaxy's draws at one binning."""

    prepared: PreparedStamp
    stamps: StampBatch
    w: Tensor
    log_q: Tensor


class Predictor:
    """Measures galaxies with a trained network.

    Args:
        model: The network.
        device: Where it runs; None: a GPU if there is one. Results are on the CPU always.
    """

    def __init__(self, model: DeepLeGAToPP, device: str | torch.device | None = None) -> None:
        if device is None:
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = torch.device(device)
        self.model = model.to(self.device).eval()

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | Path | None = None, device: str | torch.device | None = None
    ) -> Predictor:
        """Loads the network of the package, of a folder, or of the hub.

        Args:
            name_or_path: A packaged model's name, a folder, a hub id ("owner/model"), or None for
                the packaged default.
            device: See :class:`Predictor`.

        Raises:
            ModelNotFoundError: If there is no such model.
            FormatError: If its files cannot be used.
        """
        from deeplegato_pp.models import DeepLeGAToPP

        return cls(DeepLeGAToPP.from_pretrained(name_or_path), device)

    @property
    def name(self) -> str:
        """Name and version of the network, as tables state them."""
        card = self.model.card
        return f"{card.get('name', 'unnamed')} {card.get('version', '')}".strip()

    def posterior(
        self,
        observations: Image | Sequence[Image],
        num_samples: int = 1000,
        seed: int = 0,
        batch_size: int = 64,
    ) -> Posterior:
        """Draws from the network's posteriors.

        A galaxy's draws depend on its pixels, noise, mask, PSF and `seed`, not on its place in the
        list. One found too large for the stamp is binned and measured again, see
        :mod:`~deeplegato_pp.inference.binning`.

        Args:
            observations: One observation or a sequence of them. FITS files that hold everything are
                taken too, and bare 2-D arrays: noise from the image's border, reference PSF,
                pixel scale and zero point, flagged.
            num_samples: Draws per galaxy, S.
            seed: Of the draws.
            batch_size: Galaxies that go through the network together.

        Returns:
            One posterior over all: ``samples`` (B, S, 7), or (S, 7) for a single observation. A
            galaxy of a sequence that cannot be measured is a row of NaN, flagged ``FAILED``,
            with its reason.

        Raises:
            InputError: If a single observation cannot be measured.
            RangeError: If a number of draws or galaxies is not positive.

        Example:
            >>> from deeplegato_pp.data import SersicSimulator
            >>> params, images, noise, psf = SersicSimulator().sample(1)
            >>> obs = Observation.from_array(images[0], psf[0], noise[0])
            >>> Predictor.from_pretrained(device="cpu").posterior(obs, 50).samples.shape
            torch.Size([50, 7])
        """
        for what, number in (("num_samples", num_samples), ("batch_size", batch_size)):
            if number < 1:
                raise RangeError(f"{what} must be at least 1, got {number}.")
        single = is_single(observations)
        items: list[Any] = [observations] if single else list(cast(Sequence[Any], observations))
        if not items:
            raise InputError("there is nothing to measure: got an empty list of observations.")
        found: list[Posterior | None] = [None] * len(items)
        pending: list[tuple[int, Observation, PreparedStamp]] = []
        for i, item in enumerate(items):
            try:
                observation = as_observation(item)
                stamp = prepare(observation, self.model.image_size)
            except InputError as error:
                if single:
                    raise
                found[i] = self._failed(item, error, num_samples)
                continue
            pending.append((i, observation, stamp))
        self._measure(pending, found, num_samples, seed, batch_size)
        joined = Posterior.concatenate([p for p in found if p is not None])
        return joined[0] if single else joined

    def refine(
        self,
        posterior: Posterior,
        method: str = "exact",
        ess: float = 400.0,
        fixed: Mapping[str, float] | None = None,
        seed: int = 0,
    ) -> Posterior:
        """Turns the network's posterior into the exact one, by weighing draws with the likelihood.

        Exact means: one Sérsic galaxy, the given PSF and noise, a constant sky with its prior, on
        unmasked pixels, under the prior of the result's box. See ``docs/exact.md``.

        Args:
            posterior: What :meth:`posterior` returned.
            method: ``"exact"``, or ``"laplace"`` for the modes' Gaussians mixed with the network,
                several times faster and not weighted.
            ess: Effective sample size to reach.
            fixed: Parameters held at a value, in the user's units and of all galaxies, e.g.
                ``{"sersic_index": 4.0}``; the prior is that of the others, and ``log_prob`` holds
                up to a constant.
            seed: Of all random numbers.

        Returns:
            The refined posterior, with weights, evidence and verdicts. Galaxies that were not
            measured stay as they are.

        Raises:
            ConfigError: If the method is unknown.
            InputError: If draws are not the network's.
            RangeError: If a fixed value cannot be, or `ess` is not positive.
        """
        from deeplegato_pp.inference.refinement import Refiner

        return Refiner(self.model, self.device, method, ess, fixed, seed)(posterior)

    # --- measuring ----------------------------------------------------------------------------

    def _measure(
        self,
        pending: list[tuple[int, Observation, PreparedStamp]],
        found: list[Posterior | None],
        num_samples: int,
        seed: int,
        batch_size: int,
    ) -> None:
        """Fills `found`, binning what is too large until it fits or cannot be binned further."""
        for round_ in range(binning.MAX_ROUNDS + 1):
            again = []
            for start in range(0, len(pending), batch_size):
                part = pending[start : start + batch_size]
                drawn = self._draw([p for _, _, p in part], num_samples, seed)
                for (i, observation, _), result in zip(part, drawn, strict=True):
                    if isinstance(result, NumericalError):
                        found[i] = self._failed(observation, result, num_samples)
                        continue
                    coarser = self._coarser(observation, result)
                    if coarser is not None and round_ < binning.MAX_ROUNDS:
                        again.append((i, observation, coarser))
                    else:
                        found[i] = self._finish(observation, result)
            pending = again

    def _draw(
        self, prepared: list[PreparedStamp], num_samples: int, seed: int
    ) -> list[_Drawn | NumericalError]:
        """Draws for one batch; a stamp that the network chokes on does not take others along."""
        stamps = instrument.stamp_batch(prepared)
        seeds = instrument.content_seeds(stamps, seed)
        try:
            with torch.no_grad():
                context = self.model.encode(stamps.to(self.device))
                w, log_q = self.model.sample(context, num_samples, seeds)
        except NumericalError as error:
            if len(prepared) == 1:
                return [error]
            return [self._draw([p], num_samples, seed)[0] for p in prepared]
        w, log_q = w.double().cpu(), log_q.double().cpu()
        return [_Drawn(p, stamps[slice(i, i + 1)], w[i], log_q[i]) for i, p in enumerate(prepared)]

    def _median_radius(self, drawn: _Drawn) -> float:
        """Posterior median R_e. [px of the stamp]"""
        box = instrument.user_box(self.model.prior, drawn.prepared)
        radius = box.to_physical(drawn.w)[:, RADIUS] / drawn.prepared.pixel_scale
        return float(radius.median())

    def _coarser(self, observation: Observation, drawn: _Drawn) -> PreparedStamp | None:
        """Returns the stamp on which to measure a large galaxy again, if there is one."""
        current = drawn.prepared.bin
        factor = binning.next_bin(self._median_radius(drawn), current, observation.shape)
        if factor == current:
            return None
        try:
            return prepare(observation, self.model.image_size, bin=factor)
        except InputError:  # every binned pixel is masked
            return None

    def _finish(self, observation: Observation, drawn: _Drawn) -> Posterior:
        """Makes the row of one galaxy: physical units, flags, goodness of fit."""
        prepared = drawn.prepared
        if not bool(torch.isfinite(drawn.w).all() and torch.isfinite(drawn.log_q).all()):
            error = NumericalError("the network's draws are not finite. Mask bad pixels.")
            return self._failed(observation, error, len(drawn.w))
        box = instrument.user_box(self.model.prior, prepared)
        samples = box.to_physical(drawn.w)
        measurement = Measurement(
            name=observation.name,
            flags=int(prepared.flags),
            method="amortized",
            model=self.name,
            psf_fwhm=instrument.effective_fwhm(prepared),
            observation=observation,
            prepared=prepared,
            box=box,
        )
        row = Posterior(
            samples[None],
            drawn.w[None],
            (drawn.log_q + box.log_jacobian(drawn.w))[None],
            [measurement],
            drawn.stamps,
        )
        return replace(row, measurements=[self._judge(row, measurement, drawn)])

    def _judge(self, row: Posterior, measurement: Measurement, drawn: _Drawn) -> Measurement:
        """Adds the verdicts that follow from a galaxy's draws."""
        prepared, fwhm = drawn.prepared, measurement.psf_fwhm
        mean = torch.tensor([[s.value for s in parameter_summaries(row)]], dtype=torch.float64)
        center = prepared.center_from_user(float(mean[0, CENTER_X]), float(mean[0, CENTER_Y]))
        ranges = self.model.card.get("training_ranges")
        flags, notes = verdicts.posterior_flags(drawn.w, center, prepared, fwhm, ranges)
        if self._median_radius(drawn) > binning.LARGEST_RADIUS:
            flags |= Flag.TOO_LARGE
        _, chi2, _ = instrument.residual_in_sigma(instrument.render(mean, prepared)[0], prepared)
        return replace(measurement, flags=int(measurement.flags | flags), notes=notes, chi2=chi2)

    def _failed(self, item: Any, error: DeepLegatoError, num_samples: int) -> Posterior:
        observation = item if isinstance(item, Observation) else None
        name, flags = ("", 0) if observation is None else (observation.name, observation.flags)
        logger.info("%s could not be measured: %s", name or "a galaxy", error)
        measurement = Measurement(
            name=name,
            flags=int(flags),
            reason=str(error),
            model=self.name,
            observation=observation,
        )
        return Posterior.failed(measurement, num_samples, self.model.image_size)

    # --- the short way ------------------------------------------------------------------------

    def predict(
        self,
        image: Image,
        psf: Any = None,
        num_samples: int = 1000,
        return_samples: bool = False,
        seed: int = 0,
    ) -> dict[str, Any]:
        """Measures one galaxy and returns plain numbers.

        Args:
            image: Observation, FITS file, or a bare array with shape (H, W).
            psf: Image of the PSF for a bare array; None: the reference PSF, flagged.
            num_samples: Draws.
            return_samples: Add the draws.
            seed: Of the draws.

        Returns:
            ``params``: for each parameter a dictionary of ``value``, ``std``, ``ci_lower``,
            ``ci_upper`` (the central 95 %) and ``unit``. ``mean``, ``std``, ``ci_lower``,
            ``ci_upper``: the same as arrays (1, 7). ``flags`` (names) and ``posterior`` (the
            whole :class:`Posterior`, with a leading axis of one). ``samples`` (1, S, 7) if asked.

        Raises:
            InputError: If the galaxy cannot be measured, or a PSF is given beside an observation.
        """
        posterior = self.posterior(with_psf(image, psf), num_samples, seed)
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
        """Measures many galaxies; as :meth:`predict`, with arrays in place of numbers.

        Args:
            images: Observations or arrays (H, W), or one array (B, H, W).
            psfs: A PSF for all, or one per bare image.
            num_samples: Draws per galaxy.
            batch_size: Galaxies that go through the network together.
            return_samples: Add the draws.
            seed: Of the draws.

        Returns:
            The dictionary of :meth:`predict`; each ``value``, ``std``, ... has shape (B,), each
            array (B, 7). NaN for a galaxy that could not be measured.

        Raises:
            InputError: If there are not as many PSFs as images.
        """
        images = list(images)
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
        """Writes what :meth:`predict` returned to the standard output, a line per parameter."""
        sys.stdout.write(results.as_text(result))

    @staticmethod
    def plot_posterior(
        result: Posterior | dict[str, Any], save_path: str | Path | None = None
    ) -> Any:
        """Draws image, model, residual and the corner plot of one galaxy.

        Args:
            result: A single posterior, or what :meth:`predict` returned.
            save_path: Where to write the figure; its suffix chooses the format.

        Returns:
            The ``matplotlib.figure.Figure``.

        Raises:
            InputError: If the result is of more than one galaxy, or of none.
        """
        from deeplegato_pp.inference.plots import plot_posterior

        posterior = result["posterior"] if isinstance(result, dict) else result
        return plot_posterior(posterior, save_path)
