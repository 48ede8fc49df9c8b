"""What a calibration is made of: numbers, seeds, and where the simulations come from."""

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
from deeplegato_pp.data.sersic_simulator import Scene, SersicSimulator
from deeplegato_pp.data.studies import StudyConfig, apply_study
from deeplegato_pp.errors import ConfigError, RangeError
from deeplegato_pp.inference.fit.widening import WIDTHS
from deeplegato_pp.models.storage import weights_digest
from deeplegato_pp.scene.noise import MODEL_ERROR

if TYPE_CHECKING:
    from deeplegato_pp.models import DeepLeGAToPP

OWN = "own"
"""Name of the simulations that the model was trained on: its prior, its conditions."""

SMALLEST = 20
"""Fewest galaxies: two per decile. Figures of so few are mostly noise, and their bands say so."""

BATCH = 64
"""Galaxies simulated together and kept in one part file; part of what a seed means."""

STREAM = 2**41
"""Added to the seed: far from the streams of training and validation."""


@dataclass
class SimulatorConfig(Config):
    """A configuration whose ``data`` section says what is drawn, and ``study`` what is wrong."""

    study: StudyConfig = field(default_factory=StudyConfig)


@dataclass(frozen=True)
class Settings:
    """Numbers of a run.

    Attributes:
        number: Galaxies.
        seed: Random seed.
        draws: Posterior draws per galaxy for ranks and intervals.
        detailed: How many galaxies, the first ones, are also measured as a user's observation
            would be, for their verdict, and get a Cramér-Rao bound.
        refine: Refine every galaxy with the exact engine.
        ess: Effective sample size wanted of refined galaxies.
        widths: Of refined galaxies, ``honest`` or ``noise``.
        model_error: Error of the model as a fraction of itself, of refined galaxies.
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
    """A stream of simulated scenes, the same for a seed however it is cut.

    Args:
        data: What is drawn.
        study: What is wrong with it.
        seed: Of the stream.
        name: What the report calls it.
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
        """Makes the stream of a model, or of a configuration laid over the model's.

        Args:
            model: Whose prior and instruments are drawn where the configuration says nothing.
            source: A YAML file or the name of a packaged one (``studies/neighbours``); None for
                the model's own.
            seed: Of the stream.
            psf_error: Relative error of the PSF's width under which images are made and galaxies
                are refined; None: as configured, which for the model's own is none.

        Raises:
            ConfigError: If the configuration is missing, has an unknown key (its dotted name is
                in the message), or its stamps are not of the model's size.
        """
        own = model.config.to_dict()["data"]
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

    def scene(self, step: int) -> Scene:
        """Returns one batch; a study spoils the very galaxies that its own configuration draws."""
        scene = self.simulator.sample_scene(BATCH, stream_generator(STREAM + self.seed, step))
        if self.study.knobs():
            generator = stream_generator(STREAM + self.seed, step, rank=1)
            scene = apply_study(scene, self.study, generator)
        return scene

    def draw_seeds(self, step: int) -> torch.Tensor:
        """Returns one seed per galaxy of a batch, for its posterior draws, with shape (B,)."""
        generator = stream_generator(STREAM + self.seed, step, rank=2)
        return torch.randint(2**62, (BATCH,), generator=generator)

    def describe(self) -> dict[str, Any]:
        """Returns all that was drawn and spoilt, as written to files."""
        return {
            "name": self.name,
            "data": asdict(self.data),
            "prior": self.simulator.prior.to_dict(),
            "study": asdict(self.study),
        }


def fingerprint(model: DeepLeGAToPP, simulations: Simulations, settings: Settings) -> str:
    """Returns a digest of what a galaxy's figures depend on: all but how many there are.

    Part files with another digest belong to another run.
    """
    digest = hashlib.blake2b(__version__.encode(), digest_size=16)
    kept = {k: v for k, v in asdict(settings).items() if k != "number"}
    if not settings.refine:
        kept |= dict.fromkeys(("ess", "widths", "model_error"))
    digest.update(json.dumps([kept, simulations.describe()], sort_keys=True).encode())
    digest.update(weights_digest(model).encode())
    return digest.hexdigest()
