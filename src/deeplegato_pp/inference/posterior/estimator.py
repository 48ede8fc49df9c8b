"""Protocol of objects that measure galaxies, as required by catalogues and policies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from deeplegato_pp.inference.posterior.neighbours import Neighbours
from deeplegato_pp.inference.posterior.posterior import Posterior
from deeplegato_pp.observation.bands import MultiBandObservation
from deeplegato_pp.observation.correlation_inputs import GivenCorrelation
from deeplegato_pp.scene.noise import MODEL_ERROR
from deeplegato_pp.scene.prior import PriorBox


class Estimator(Protocol):
    """Measures galaxies, as :class:`~deeplegato_pp.inference.Predictor` does.

    Catalogues accept any object with these methods, so that catalogue and predictor do not import
    each other.
    """

    @property
    def name(self) -> str:
        """Name and version, as written to tables."""

    @property
    def image_size(self) -> int:
        """Side of the stamps on which galaxies are measured. [px]"""

    @property
    def prior(self) -> PriorBox:
        """Prior box at the reference instrument."""

    def posterior(
        self,
        observations: Any,
        num_samples: int = 1000,
        seed: int | Sequence[int] | None = 0,
        batch_size: int = 64,
        widths: str = "honest",
    ) -> Posterior:
        """Returns draws from the posteriors of galaxies."""

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
        """Returns exact posteriors, given those of the network."""

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
        """Returns the posteriors of galaxies in several bands."""
