"""Settings of a calibration: numbers, seeds, and source of the simulations."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from deeplegato_pp._version import __version__
from deeplegato_pp.calibration.truth import best_profiles
from deeplegato_pp.checks import check_choice, check_psf_error
from deeplegato_pp.config.schema import Config, DataConfig, merge_configs
from deeplegato_pp.data.datasets import stream_generator
from deeplegato_pp.data.sersic_simulator import SersicSimulator, SimulatedScene
from deeplegato_pp.data.studies import StudyConfig, apply_study
from deeplegato_pp.errors import ConfigError, RangeError
from deeplegato_pp.inference.fit.widening import WIDTHS
from deeplegato_pp.models.storage import weights_digest
from deeplegato_pp.scene.noise import MODEL_ERROR

if TYPE_CHECKING:
    from deeplegato_pp.models import DeepLeGAToPP

OWN = "own"
"""Name of the simulations with the model's own prior and conditions."""

SMALLEST = 20
"""Minimum number of galaxies: two per decile. Figures from so few are dominated by noise."""

BATCH = 64
"""Number of galaxies per batch and part file; results for a seed depend on it."""

STREAM = 2**41
"""Added to the seed, to separate it from the streams of training and validation."""


@dataclass
class SimulatorConfig(Config):
    """Configuration whose ``data`` section defines the simulations, and ``study`` their defects."""

    study: StudyConfig = field(default_factory=StudyConfig)


@dataclass(frozen=True)
class Settings:
    """Settings of a run.

    Attributes:
        number: Number of galaxies.
        seed: Random seed.
        draws: Number of posterior draws per galaxy for ranks and intervals.
        detailed: Number of galaxies, from the first, that are also measured as user observations,
            for their verdict, and get a Cramér-Rao bound.
        refine: Whether galaxies are refined to the exact posterior.
        ess: Required effective sample size of refined galaxies.
        widths: Widths of refined galaxies, ``honest`` or ``noise``.
        model_error: Relative model error for refined galaxies.
    """

    number: int = 10_000
    seed: int = 0
    draws: int = 300
    detailed: int = 2000
    refine: bool = False
    ess: float = 400.0
    widths: str = "honest"
    model_error: float = MODEL_ERROR

    def __post_init__(self) -> None:
        if self.number < SMALLEST:
            raise RangeError(
                f"calibration takes at least {SMALLEST} galaxies, got {self.number}. Deciles need "
                "some in each; 10,000 tell one per cent from noise."
            )
        if self.draws < 50:
            raise RangeError(f"draws must be at least 50, got {self.draws}: intervals need tails.")
        if self.seed < 0 or self.detailed < 0:
            raise RangeError(
                f"seed and detailed must not be negative, got {self.seed} and {self.detailed}."
            )
        if not self.ess > 0:
            raise RangeError(f"ess must be positive, got {self.ess}.")
        check_choice(self.widths, WIDTHS, "widths")


class Simulations:
    """Stream of simulated scenes, reproducible for a seed however it is divided.

    Args:
        data: Configuration of the simulations.
        study: Configuration of their defects.
        seed: Random seed of the stream.
        name: Name in the report.
    """

    def __init__(self, data: DataConfig, study: StudyConfig, seed: int, name: str) -> None:
        study.check()
        self.data, self.study, self.seed, self.name = data, study, seed, name
        self.simulator = SersicSimulator.from_config(data, truth=best_profiles)

    @classmethod
    def of(
        cls,
        model: DeepLeGAToPP,
        source: str | Path | None,
        seed: int,
        psf_error: float | None = None,
    ) -> Simulations:
        """Makes the stream of a model, or of a configuration based on the model's.

        Args:
            model: Model whose prior and conditions are used unless configured otherwise.
            source: A YAML file or the name of a packaged one (``studies/neighbours``); None for the
                model's own conditions. A configuration with a share of structure states the whole
                structure; others keep the model's.
            seed: Random seed of the stream.
            psf_error: Relative error of the PSF's width with which images are made and galaxies are
                refined; None as configured, which is none for the model's own conditions.

        Raises:
            ConfigError: If the configuration is missing, has an unknown key (its dotted name is in
                the message), or its stamps do not have the model's size.
        """
        own = model.config.to_dict()["data"]
        if merge_configs(SimulatorConfig, [source]).data.structure.share:
            del own["structure"]
        layers = [{"data": own}, source]
        if psf_error is not None:
            layers.append({"data": {"conditions": {"psf_error": check_psf_error(psf_error)}}})
        config = merge_configs(SimulatorConfig, layers)
        if config.data.image_size != model.image_size:
            raise ConfigError(
                f"data.image_size is {config.data.image_size} px, and the model takes "
                f"{model.image_size} px. Leave it out of the configuration."
            )
        own_name = "psf_error" if psf_error else OWN
        name = own_name if source is None else Path(source).stem
        return cls(config.data, config.study, seed, name)

    def scene(self, step: int) -> SimulatedScene:
        """Returns one batch; a study modifies the galaxies that its configuration draws."""
        scene = self.simulator.sample_scene(BATCH, stream_generator(STREAM + self.seed, step))
        if self.study.knobs():
            generator = stream_generator(STREAM + self.seed, step, rank=1)
            scene = apply_study(scene, self.study, generator)
        return scene

    def draw_seeds(self, step: int) -> torch.Tensor:
        """Returns one random seed per galaxy of a batch for its draws, with shape (B,)."""
        generator = stream_generator(STREAM + self.seed, step, rank=2)
        return torch.randint(2**62, (BATCH,), generator=generator)

    def describe(self) -> dict[str, Any]:
        """Returns the configuration and defects of the simulations, as written to files."""
        return {
            "name": self.name,
            "data": asdict(self.data),
            "prior": self.simulator.prior.to_dict(),
            "study": asdict(self.study),
        }


def fingerprint(model: DeepLeGAToPP, simulations: Simulations, settings: Settings) -> str:
    """Returns a digest of everything that determines a galaxy's figures, except their number.

    Part files with another digest belong to another run.
    """
    digest = hashlib.blake2b(__version__.encode(), digest_size=16)
    kept = {k: v for k, v in asdict(settings).items() if k != "number"}
    if not settings.refine:
        kept |= dict.fromkeys(("ess", "widths", "model_error"))
    digest.update(json.dumps([kept, simulations.describe()], sort_keys=True).encode())
    digest.update(weights_digest(model).encode())
    return digest.hexdigest()
