"""Joint posterior of one galaxy in several bands.

The network measures each band separately. From its draws, a search finds the mode of every band and
masks neighbours; from the combination of the bands, another search finds the modes of the joint
posterior. Importance sampling with a Student-t at each mode gives weighted draws and the evidence;
the Laplace method draws from Gaussians at the modes instead.
"""

from __future__ import annotations

from dataclasses import dataclass

from deeplegato_pp.checks import check_model_error
from deeplegato_pp.errors import ConfigError, InputError
from deeplegato_pp.inference.posterior.measurement import Measured, as_measured
from deeplegato_pp.inference.posterior.posterior import Posterior
from deeplegato_pp.inference.refine.band_rows import row_of
from deeplegato_pp.inference.refine.band_search import BandSearch, frame_of
from deeplegato_pp.inference.refine.options import METHODS
from deeplegato_pp.observation.bands import MultiBandObservation
from deeplegato_pp.scene import units
from deeplegato_pp.scene.bands import STRUCTURES, BandCoordinates
from deeplegato_pp.scene.likelihood import Likelihood
from deeplegato_pp.scene.noise import MODEL_ERROR
from deeplegato_pp.scene.prior import PriorBox


@dataclass(frozen=True)
class BandOptions:
    """Settings for fits in several bands; see :meth:`Predictor.fit_bands`.

    Attributes:
        structure: One of :data:`~deeplegato_pp.scene.bands.STRUCTURES`.
        ess: Required effective sample size.
        model_error: Model error as a fraction of the model image.
        honest: Whether draws are moved to honest widths.
        method: ``"exact"`` or ``"laplace"``.

    Raises:
        ConfigError: If the structure or the method is unknown.
        RangeError: If the model's error lies outside [0, 1].
    """

    structure: str = "shared"
    ess: float = 400.0
    model_error: float = MODEL_ERROR
    honest: bool = True
    method: str = "exact"

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ConfigError(f"method must be one of {METHODS}, got {self.method!r}.")
        if self.structure not in STRUCTURES:
            raise ConfigError(
                f"unknown structure {self.structure!r} of bands, expected one of "
                f"{', '.join(STRUCTURES)}."
            )
        check_model_error(self.model_error)


def fit_bands(
    galaxy: MultiBandObservation,
    network: Posterior,
    prior: PriorBox,
    seed: int,
    options: BandOptions,
) -> Posterior:
    """Computes the joint posterior of one galaxy in several bands.

    Args:
        galaxy: Observations of the galaxy.
        network: The network's draws of each band, in the order of `galaxy`.
        prior: Prior box of the first band at the reference instrument.
        seed: Random seed.
        options: Settings.

    Raises:
        ConfigError: If the structure is linear and the wavelengths are not usable.
        InputError: If a band was not measured by the network.
    """
    for band, m in zip(galaxy.bands, network.measurements, strict=True):
        if not isinstance(m, Measured):
            raise InputError(f"band {band} could not be measured: {m.reason}")
    stamps = [as_measured(m).prepared for m in network.measurements]
    frames = [frame_of(a, stamps[0], s) for a, s in zip(galaxy.aligned, stamps, strict=True)]
    coordinates = BandCoordinates(prior, frames, options.structure, galaxy.wavelengths)
    single = Likelihood.of(stamps, prior, model_error=options.model_error)
    search = BandSearch(single, coordinates, network.batch_w)
    seeds = units.content_seeds(network.stamps, seed)
    if options.method == "laplace":
        draws = search.gaussian(int(seeds[0]), network.batch_w.shape[1])
    else:
        draws = search.sample(int(seeds[0]), options.ess)
    return row_of(
        galaxy, network, search, draws, model_error=options.model_error, honest=options.honest
    )
