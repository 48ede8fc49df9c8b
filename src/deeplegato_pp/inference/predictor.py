"""The Predictor: from observations to posteriors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from deeplegato_pp._lazy import moved_name
from deeplegato_pp.checks import (
    check_choice,
    check_positive,
    check_positive_integer,
    check_seed,
    check_within,
)
from deeplegato_pp.errors import InputError
from deeplegato_pp.inference.amortized import AmortizedMeasurer, Pending
from deeplegato_pp.inference.dictionaries import DictionaryInterface
from deeplegato_pp.inference.fit.widening import WIDTHS
from deeplegato_pp.inference.images import Image, as_list, as_observation, is_single
from deeplegato_pp.inference.posterior.neighbours import Neighbours
from deeplegato_pp.inference.posterior.posterior import Measurement, Posterior
from deeplegato_pp.inference.verdict.novelty import Novelty
from deeplegato_pp.isolation import raise_if_of_the_machine, reason_of
from deeplegato_pp.observation.bands import MultiBandObservation
from deeplegato_pp.observation.correlation_inputs import GivenCorrelation
from deeplegato_pp.observation.preparation import prepare
from deeplegato_pp.scene.noise import MODEL_ERROR
from deeplegato_pp.scene.prior import PriorBox

if TYPE_CHECKING:
    from deeplegato_pp.inference.recalibration import Recalibration
    from deeplegato_pp.models import DeepLeGAToPP


MOST_SAMPLES = 1_000_000
"""Maximum number of draws per galaxy, 0.2 GB."""


class Predictor(DictionaryInterface):
    """Measures galaxies with a trained network.

    Args:
        model: The network.
        device: Device of the network; None: a GPU if available. Results are always on the CPU.
        recalibration: Recalibration of the draws of every posterior, see
            :mod:`~deeplegato_pp.inference.recalibration`; None for the network's own draws.
    """

    def __init__(
        self,
        model: DeepLeGAToPP,
        device: str | torch.device | None = None,
        recalibration: Recalibration | None = None,
    ) -> None:
        self.recalibration = recalibration
        if device is None:
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = as_device(device)
        self.model = model.to(self.device).eval()
        self.novelty = Novelty.of(model)

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path | None = None,
        device: str | torch.device | None = None,
        recalibrated: bool = False,
    ) -> Predictor:
        """Loads a packaged network, or one from a folder or the hub.

        Args:
            name_or_path: A packaged model's name, a folder, a hub id ("owner/model"), or None for
                the packaged default.
            device: See :class:`Predictor`.
            recalibrated: Whether to recalibrate posteriors with the ``recalibration.json`` beside
                the weights.

        Raises:
            ModelNotFoundError: If the model does not exist.
            FormatError: If its files cannot be used, or a requested recalibration is missing.
        """
        from deeplegato_pp.models import DeepLeGAToPP
        from deeplegato_pp.models.storage import RECALIBRATION, find, weights_digest

        if not recalibrated:
            return cls(DeepLeGAToPP.from_pretrained(name_or_path), device)
        from deeplegato_pp.inference.recalibration import Recalibration

        folder = find(name_or_path)
        model = DeepLeGAToPP.from_pretrained(folder)
        recalibration = Recalibration.load(folder / RECALIBRATION, weights_digest(model))
        return cls(model, device, recalibration)

    @property
    def name(self) -> str:
        """Name and version of the network, as written to tables."""
        card = self.model.card
        return f"{card.get('name', 'unnamed')} {card.get('version', '')}".strip()

    @property
    def image_size(self) -> int:
        """Side of the network's stamps. [px]"""
        return self.model.image_size

    @property
    def prior(self) -> PriorBox:
        """Prior box of the network's training, at the reference instrument."""
        return self.model.prior

    def posterior(
        self,
        observations: Image | Sequence[Image],
        num_samples: int = 1000,
        seed: int | Sequence[int] | None = 0,
        batch_size: int = 64,
        widths: str = "honest",
    ) -> Posterior:
        """Draws from the network's posteriors.

        A galaxy's draws depend on its pixels, noise, mask, PSF and `seed`, not on its position in
        the list. A galaxy too large for the stamp is binned and measured again, see
        :mod:`~deeplegato_pp.observation.binning`.

        Args:
            observations: One observation or a sequence of them. Self-contained FITS files are
                accepted too, and bare images, (H, W), (B, H, W) or (B, 1, H, W), for which the
                noise is estimated from the border and reference PSF, pixel scale and zero point are
                assumed, with flags.
            num_samples: Draws per galaxy, S.
            seed: Random seed; with a sequence of one seed per observation, each galaxy's draws
                depend only on its own seed and the network's output; None draws a random seed.
            batch_size: Number of galaxies per forward pass.
            widths: ``"honest"``: draws of galaxies above S/N 30, or with a poor fit, are widened to
                account for deviations from a Sérsic profile, which takes a search for the optimum
                (see ``docs/error_bars.md``); or ``"noise"``: the network's own widths.
                Recalibrated draws are never widened.

        Returns:
            One posterior for all: ``samples`` (B, S, 7), or (S, 7) for a single observation. A
            galaxy of a sequence that cannot be measured is a row of NaN, flagged ``FAILED``,
            with its reason.

        Raises:
            InputError: If a single observation cannot be measured, or the kind of widths is
                unknown.
            RangeError: If a number of draws or galaxies is not positive.

        Example:
            >>> from deeplegato_pp import Observation
            >>> from deeplegato_pp.data import SersicSimulator
            >>> params, images, noise, psf = SersicSimulator().sample(1)
            >>> obs = Observation.from_array(images[0], psf[0], noise[0])
            >>> Predictor.from_pretrained(device="cpu").posterior(obs, 50).samples.shape
            torch.Size([50, 7])
        """
        num_samples = check_positive_integer(num_samples, "num_samples")
        check_within(num_samples, 1, MOST_SAMPLES, "num_samples")
        batch_size = check_positive_integer(batch_size, "batch_size")
        check_choice(widths, WIDTHS, "widths")
        single = is_single(observations)
        items = as_list(observations)
        seed = check_seed(seed, len(items))
        measurer = AmortizedMeasurer(self.model, self.device, self.name, self.novelty)
        found: list[Posterior | None] = [None] * len(items)
        pending: list[Pending] = []
        for i, item in enumerate(items):
            try:
                observation = as_observation(item)
                stamp = prepare(observation, self.model.image_size)
            except Exception as error:  # any error becomes this galaxy's reason
                if single:
                    raise
                raise_if_of_the_machine(error)
                found[i] = measurer.failed(item, error, num_samples)
                continue
            pending.append(Pending(i, observation, stamp))
        for i, row in measurer.measure(pending, num_samples, seed, batch_size):
            found[i] = row
        joined = Posterior.concatenate([p for p in found if p is not None])
        if self.recalibration is not None:
            joined = self.recalibration.apply_to(joined)
        elif widths == "honest":
            from deeplegato_pp.inference.refine.network_widths import honest_network

            joined = honest_network(joined, self.model.prior)
        return joined[0] if single else joined

    def refine(
        self,
        posterior: Posterior,
        method: str = "exact",
        ess: float = 400.0,
        fixed: Mapping[str, Any] | None = None,
        seed: int | Sequence[int] | None = 0,
        star_odds: float | None = 1.0,
        noise_correlation: GivenCorrelation | None = None,
        model_error: float = MODEL_ERROR,
        widths: str = "honest",
        scene: str = "sersic",
        neighbours: Sequence[Neighbours | None] | None = None,
        psf_error: float | None = None,
    ) -> Posterior:
        """Converts the network's posterior to the exact one, by importance sampling.

        The exact posterior assumes one Sérsic galaxy, the given PSF and noise, a constant sky with
        its prior, on unmasked pixels, under the prior of the result's box. See ``docs/exact.md``.

        Args:
            posterior: Result of :meth:`posterior`.
            method: ``"exact"``, or ``"laplace"`` for the modes' Gaussians mixed with the network,
                several times faster and unweighted.
            ess: Required effective sample size.
            fixed: Values of fixed parameters, in the user's units: a number for all galaxies, or
                one per galaxy, e.g. ``{"sersic_index": 4.0, "center_x": [0.3, -1.2]}``; the prior
                is then that of the free ones, and ``log_prob`` holds up to a constant.
            seed: Random seed; a sequence holds one per galaxy, None draws a random seed.
            star_odds: Prior odds of a point source against a galaxy, for ``star_probability``;
                None for no comparison. Only the exact method compares.
            noise_correlation: For drizzled images: variance of sums over many pixels relative to
                independent pixels (at least 1), the correlation at each lag, or
                ``"drizzle:SCALE,PIXFRAC"``; None for that of the observations.
            model_error: Model error as a fraction of the model image, added in quadrature to the
                noise, so that deviations from a Sérsic profile in a few bright pixels do not
                dominate the fit.
            widths: ``"honest"``: draws are widened according to the scatter of the residuals over
                the sky, to account for deviations from a Sérsic profile, see
                ``docs/error_bars.md``; or ``"noise"``: widths from the stated noise alone.
            scene: ``"sersic"``; ``"sersic+point"``, ``"bulge+disc"`` (n 4 and 1) or
                ``"sersic+sersic"``, fitted in addition to the single profile; or ``"auto"``, which
                compares the first three by tempered odds. See ``docs/scenes.md``.
            neighbours: Galaxies on the same image to be fitted with each galaxy and marginalised,
                one entry per galaxy, None for an isolated galaxy.
            psf_error: Relative error of the PSF's width, one sigma, used for all hypotheses (see
                ``docs/error_bars.md``); None for that of the observations, 0.02 by default; 0 for
                known PSFs.

        Returns:
            The refined posterior, with weights, evidence and diagnostics. Galaxies that were not
            measured are unchanged.

        Raises:
            ConfigError: If the method is unknown.
            InputError: If draws are not the network's own, or the kind of widths is unknown.
            RangeError: If a fixed value, `noise_correlation`, `model_error` or `psf_error` is out
                of range, or `ess` or `star_odds` is not positive.
            ShapeError: If the number of fixed values differs from that of galaxies.
        """
        from deeplegato_pp.inference.refine.refiner import Refiner

        if self.recalibration is not None:
            raise InputError(
                "recalibrated draws cannot be refined: their density is not known. Refine those of "
                "a predictor made without recalibrated=True; exact posteriors need no other."
            )
        if not isinstance(posterior, Posterior):
            raise InputError(
                f"refine takes what posterior() returned, got a {type(posterior).__name__}."
            )
        refiner = Refiner(
            self.model,
            self.device,
            method,
            check_positive(ess, "ess"),
            fixed,
            check_seed(seed, len(posterior)),
            star_odds,
            noise_correlation,
            model_error,
            widths,
            scene,
            neighbours,
            psf_error,
        )
        return refiner(posterior)

    def fit_bands(
        self,
        galaxies: MultiBandObservation | Sequence[MultiBandObservation],
        structure: str = "shared",
        ess: float = 400.0,
        seed: int | Sequence[int] | None = 0,
        model_error: float = MODEL_ERROR,
        widths: str = "honest",
        num_samples: int = 200,
        method: str = "exact",
    ) -> Posterior:
        """Computes the posteriors of galaxies, each fitted in several bands together.

        Every band has its own magnitude; the centre is shared, and the structure (R_e, n, q,
        position angle) is shared, linear in the logarithm of the wavelength, or free. See
        ``docs/bands.md``.

        Args:
            galaxies: One galaxy, or a sequence of them.
            structure: ``"shared"``, ``"linear"`` (the observations then need wavelengths) or
                ``"free"``.
            ess: Required effective sample size.
            seed: Random seed; a sequence holds one per galaxy, None draws a random seed.
            model_error: Model error as a fraction of the model image; see :meth:`refine`.
            widths: ``"honest"`` or ``"noise"``; see :meth:`refine`.
            num_samples: Number of the network's draws of each band, from which the search starts.
            The Laplace method returns as many draws.
            method: ``"exact"`` or ``"laplace"``: draws from Gaussians at the modes, which are not
                rendered and have no weights.

        Returns:
            Posteriors in the units of each galaxy's first band; magnitudes of all bands and colours
            are columns of their tables. A galaxy of a sequence that cannot be fitted is a row of
            NaN, flagged ``FAILED``, with its reason.

        Raises:
            ConfigError: If the structure or the method is unknown, or the structure is linear
                without wavelengths.
            InputError: If a single galaxy has a band that cannot be measured, or the kind of widths
                is unknown.
            RangeError: If `ess` is not positive.
        """
        from deeplegato_pp.inference.refine.bands import BandOptions, fit_bands

        check_choice(widths, WIDTHS, "widths")
        options = BandOptions(
            structure, check_positive(ess, "ess"), model_error, widths == "honest", method
        )
        single = isinstance(galaxies, MultiBandObservation)
        items = [galaxies] if isinstance(galaxies, MultiBandObservation) else list(galaxies)
        seeds = check_seed(seed, len(items))
        rows = []
        for i, galaxy in enumerate(items):
            own = seeds if isinstance(seeds, int) else seeds[i]
            try:
                bands = [a.observation for a in galaxy.aligned]
                network = self.posterior(bands, num_samples, own, widths="noise")
                rows.append(fit_bands(galaxy, network, self.model.prior, own, options))
            except Exception as error:  # any error becomes this galaxy's reason
                if single:
                    raise
                raise_if_of_the_machine(error)
                lost = Measurement(name=galaxy.name, reason=reason_of(error), model=self.name)
                rows.append(Posterior.failed(lost, 1, self.model.image_size))
        joined = Posterior.concatenate(rows)
        return joined[0] if single else joined

    def catalog(self, images: Any, sources: Any, **options: Any) -> Any:
        """Calls :func:`deeplegato_pp.catalog.catalog`, which replaces this method.

        .. deprecated:: 0.2
            Call ``deeplegato_pp.catalog.catalog(predictor, images, sources, ...)``.
        """
        # Imported by name, because the catalog package imports this one.
        make = moved_name("Predictor", "catalog", "deeplegato_pp.catalog")
        return make(self, images, sources, **options)


def as_device(device: str | torch.device) -> torch.device:
    """Returns a device.

    Raises:
        InputError: If torch does not know the device.
    """
    try:
        return torch.device(device)
    except (RuntimeError, TypeError):
        raise InputError(
            f"device must be one that torch knows, such as cpu, cuda or cuda:1, got {device!r}."
        ) from None
