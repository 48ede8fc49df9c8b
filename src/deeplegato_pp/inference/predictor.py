"""The Predictor: observations in, posteriors out."""

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
"""Most draws per galaxy: 0.2 GB of them."""


class Predictor(DictionaryInterface):
    """Measures galaxies with a trained network.

    Args:
        model: The network.
        device: Where it runs; None: a GPU if there is one. Results are on the CPU always.
        recalibration: Moves the draws of every posterior, see
            :mod:`~deeplegato_pp.inference.recalibration`; None: they stay the network's own.
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
        """Loads the network of the package, of a folder, or of the hub.

        Args:
            name_or_path: A packaged model's name, a folder, a hub id ("owner/model"), or None for
                the packaged default.
            device: See :class:`Predictor`.
            recalibrated: Whether posteriors are recalibrated, by the ``recalibration.json`` beside
                the weights.

        Raises:
            ModelNotFoundError: If there is no such model.
            FormatError: If its files cannot be used, or it has no recalibration and one is wanted.
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
        """Name and version of the network, as tables state them."""
        card = self.model.card
        return f"{card.get('name', 'unnamed')} {card.get('version', '')}".strip()

    @property
    def image_size(self) -> int:
        """Side of the stamps on which the network measures. [px]"""
        return self.model.image_size

    @property
    def prior(self) -> PriorBox:
        """Prior box at the reference instrument, under which the network was trained."""
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

        A galaxy's draws depend on its pixels, noise, mask, PSF and `seed`, not on its place in the
        list. One found too large for the stamp is binned and measured again, see
        :mod:`~deeplegato_pp.observation.binning`.

        Args:
            observations: One observation or a sequence of them. FITS files that hold everything are
                taken too, and bare images, (H, W), (B, H, W) or (B, 1, H, W): noise from the
                image's border, reference PSF, pixel scale and zero point, flagged.
            num_samples: Draws per galaxy, S.
            seed: Of the draws; a sequence holds one per observation, on which alone its draws
                then depend, beside the network's output; None draws one.
            batch_size: Galaxies that go through the network together.
            widths: ``"honest"``: draws of galaxies above S/N 30, or that do not fit, are moved to
                widths that hold for galaxies that are no Sérsic profiles, at the price of a search
                for the optimum (see ``docs/error_bars.md``); or ``"noise"``: the network's own.
                Recalibrated draws are never moved.

        Returns:
            One posterior over all: ``samples`` (B, S, 7), or (S, 7) for a single observation. A
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
            except Exception as error:  # whatever it is, it is this one's reason
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
        """Turns the network's posterior into the exact one, by weighing draws with the likelihood.

        Exact means: one Sérsic galaxy, the given PSF and noise, a constant sky with its prior, on
        unmasked pixels, under the prior of the result's box. See ``docs/exact.md``.

        Args:
            posterior: What :meth:`posterior` returned.
            method: ``"exact"``, or ``"laplace"`` for the modes' Gaussians mixed with the network,
                several times faster and not weighted.
            ess: Effective sample size to reach.
            fixed: Parameters held at a value, in the user's units: a number for all galaxies, or
                one per galaxy, e.g. ``{"sersic_index": 4.0, "center_x": [0.3, -1.2]}``; the prior
                is that of the others, and ``log_prob`` holds up to a constant.
            seed: Random seed; a sequence holds one per galaxy, None draws one.
            star_odds: Prior odds of a point source against a galaxy, behind ``star_probability``;
                None saves the comparison. Only the exact method compares.
            noise_correlation: For drizzled images: variance of the noise of sums over many pixels,
                over what independent pixels would have (at least 1), the correlation at each lag,
                or ``"drizzle:SCALE,PIXFRAC"``; None: what the observations say.
            model_error: Error of the model as a fraction of itself, added in quadrature to the
                noise: no galaxy is a Sérsic profile, and a few bright pixels are not to decide.
            widths: ``"honest"``: the draws are moved so that their widths hold for galaxies that
                are no Sérsic profiles, by how the residuals scatter over the sky, see
                ``docs/error_bars.md``; or ``"noise"``: they stay as the stated noise has them.
            scene: ``"sersic"``; ``"sersic+point"``, ``"bulge+disc"`` (n 4 and 1) or
                ``"sersic+sersic"``: that is fitted beside the single profile; or ``"auto"``: the
                first three are compared, by tempered odds. See ``docs/scenes.md``.
            neighbours: Galaxies on the same image to be fitted with each, one entry per galaxy and
                None for one that stands alone: they are free too, and integrated out.
            psf_error: Relative error of the PSF's width, one sigma, under which every hypothesis is
                weighed (see ``docs/error_bars.md``); None: what the observations say, 0.02 by
                default; 0: PSFs are known.

        Returns:
            The refined posterior, with weights, evidence and verdicts. Galaxies that were not
            measured stay as they are.

        Raises:
            ConfigError: If the method is unknown.
            InputError: If draws are not the network's own, or the kind of widths is unknown.
            RangeError: If a fixed value cannot be, `ess` or `star_odds` is not positive, or
                `noise_correlation`, `model_error` or `psf_error` cannot be.
            ShapeError: If there are not as many fixed values as galaxies.
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
    ) -> Posterior:
        """Returns the exact posteriors of galaxies, each fitted in several bands together.

        Every band has its magnitude; the centre is one, and the structure (R_e, n, q, position
        angle) is shared, linear in the logarithm of the wavelength, or free. See ``docs/bands.md``.

        Args:
            galaxies: One, or a sequence of them.
            structure: ``"shared"``, ``"linear"`` (the observations then need wavelengths) or
                ``"free"``.
            ess: Effective sample size to reach.
            seed: Random seed; a sequence holds one per galaxy, None draws one.
            model_error: Error of the model as a fraction of itself; see :meth:`refine`.
            widths: ``"honest"`` or ``"noise"``; see :meth:`refine`.
            num_samples: The network's draws of each band, from which the search starts.

        Returns:
            Posteriors in the units of each galaxy's first band; magnitudes of all bands and colours
            are columns of their tables. A galaxy of a sequence that cannot be fitted is a row of
            NaN, flagged ``FAILED``, with its reason.

        Raises:
            ConfigError: If the structure is unknown, or linear without wavelengths.
            InputError: If a single galaxy has a band that cannot be measured, or the kind of widths
                is unknown.
            RangeError: If `ess` is not positive.
        """
        from deeplegato_pp.inference.refine.bands import BandOptions, fit_bands

        check_choice(widths, WIDTHS, "widths")
        options = BandOptions(
            structure, check_positive(ess, "ess"), model_error, widths == "honest"
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
            except Exception as error:  # whatever it is, it is this one's reason
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
        # By name, not by an import: catalogues stand above the predictor.
        make = moved_name("Predictor", "catalog", "deeplegato_pp.catalog")
        return make(self, images, sources, **options)


def as_device(device: str | torch.device) -> torch.device:
    """Returns a device.

    Raises:
        InputError: If torch knows none of that name.
    """
    try:
        return torch.device(device)
    except (RuntimeError, TypeError):
        raise InputError(
            f"device must be one that torch knows, such as cpu, cuda or cuda:1, got {device!r}."
        ) from None
