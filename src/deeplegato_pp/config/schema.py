"""Schema of the configuration: dataclasses filled from YAML; unknown keys are errors.

Every field is used. `config.layers` finds and merges files, `config.spelling` accepts alternative
spellings of keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar, cast

from deeplegato_pp.config.layers import CONFIG_DIR as CONFIG_DIR
from deeplegato_pp.config.layers import LOOKED_UP, Source, merge
from deeplegato_pp.config.structure import StructureConfig as StructureConfig
from deeplegato_pp.config.training import LoggingConfig as LoggingConfig
from deeplegato_pp.config.training import TrainingConfig as TrainingConfig
from deeplegato_pp.config.training import ValidationConfig as ValidationConfig

C = TypeVar("C")


@dataclass
class ConditionsConfig:
    """Observing conditions of training stamps; lengths in pixels, fluxes in background sigmas.

    Attributes:
        psf_fwhm: Range of the PSF's FWHM, log-uniform. [px]
        gain: Range of electrons per background sigma, log-uniform.
        fixed_variance: Fraction of stamps with a total noise map and no gain.
        source_in_map: Fraction of those maps that include the source's shot noise, as estimated
            from the smoothed noisy image; the others are flat backgrounds.
        read_fraction: Maximum fraction of the background's variance that is read noise.
        sky_sigma: Range of the sky offset's standard deviation, log-uniform. [background sigma]
        correlated_noise: Fraction of stamps with correlated noise, as produced by drizzling. A
            network trained with a fraction above 0 has `noise_correlation` as an input.
        noise_correlation: Range, for those stamps, of the noise variance of sums over many pixels
            relative to that of independent pixels, log-uniform.
        sky_gradient: Fraction of stamps with a residual gradient of the sky; at the edge of the
            stamp it equals the sky offset at the centre.
        uneven_noise: Fraction of stamps whose background noise varies smoothly.
        small_stamps: Fraction of stamps that fill only part of the square (the rest is masked).
        smallest_stamp: Smallest visible side. [px]
        bad_pixels: Fraction of stamps with dead pixels and columns.
        bleed_trails: Fraction of stamps crossed by the masked trail of a saturated star.
        saturated: Fraction of stamps in which pixels above a random level, 50 to 5,000 background
            sigmas, are masked.
        spikes: Fraction of the telescopes' PSFs (a third of all) with four or six diffraction
            spikes of a secondary mirror's vanes.
        aberrated: Fraction of those with wavefront aberrations, and of the other PSFs with lopsided
            and triangular distortions.
        psf_offset: Standard deviation of the PSF's centre from that of its array, along x and y.
            [px]
        psf_error: Relative standard error of the PSF's width: images are rendered with a PSF that
            is wider or narrower than the stated one.
        psf_error_input: Whether each stamp's error is drawn uniformly between 0 and `psf_error` and
            given to the network as an input.
        masked_regions: Fraction of stamps with masked discs.
        neighbours: Fraction of stamps with neighbouring galaxies and stars.
        max_neighbours: Maximum number of neighbours in a stamp.
        neighbours_masked: Fraction of neighbours that are masked, imperfectly, as by a detection.
    """

    psf_fwhm: tuple[float, float] = (1.0, 6.0)
    gain: tuple[float, float] = (1.0, 1e4)
    fixed_variance: float = 0.5
    source_in_map: float = 0.6
    read_fraction: float = 0.5
    sky_sigma: tuple[float, float] = (0.005, 0.1)
    correlated_noise: float = 0.2
    noise_correlation: tuple[float, float] = (1.0, 5.0)
    sky_gradient: float = 0.3
    uneven_noise: float = 0.3
    small_stamps: float = 0.3
    smallest_stamp: int = 32
    bad_pixels: float = 0.3
    bleed_trails: float = 0.05
    saturated: float = 0.1
    spikes: float = 0.5
    aberrated: float = 0.4
    psf_offset: float = 0.1
    psf_error: float = 0.0
    psf_error_input: bool = False
    masked_regions: float = 0.3
    neighbours: float = 0.3
    max_neighbours: int = 3
    neighbours_masked: float = 0.7

    def ranges(self) -> dict[str, Any]:
        """Returns the ranges of conditions by name; c = 1 if noise was never correlated."""
        met = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
        if not self.correlated_noise:
            met["noise_correlation"] = [1.0, 1.0]
        return met

    def clean(self) -> ConditionsConfig:
        """Returns the same conditions without masks, neighbours or partial stamps."""
        return ConditionsConfig(
            **{
                **asdict(self),
                "source_in_map": 0.0,
                "correlated_noise": 0.0,
                "sky_gradient": 0.0,
                "bleed_trails": 0.0,
                "saturated": 0.0,
                "uneven_noise": 0.0,
                "psf_error": 0.0,
                "small_stamps": 0.0,
                "bad_pixels": 0.0,
                "masked_regions": 0.0,
                "neighbours": 0.0,
            }
        )


@dataclass
class NoiseConfig:
    """Camera that determines gain and depth; its gain takes precedence over other settings.

    Attributes:
        gain: Electrons per image unit, or None without camera.
        sky_background: Sky level. [image units/px]
        read_noise: Read noise. [electrons/px]
        zero_point: Magnitude of one image unit; None keeps `data.zero_point`.
        spread: Factor by which background sigmas vary in both directions, log-uniform, for
            different skies and exposures.
    """

    gain: float | None = None
    sky_background: float = 0.0
    read_noise: float = 0.0
    zero_point: float | None = None
    spread: float = 2.0


@dataclass
class DataConfig:
    """Training data: simulator, stored simulations and real galaxies.

    Attributes:
        image_size: Side of the stamps. [px]
        pixel_scale: Pixel scale of the instrument. [arcsec/px]
        zero_point: Magnitude of one background sigma per pixel at the instrument.
        priors: Bounds by parameter name, at the instrument; others have their defaults.
        conditions: Observing conditions of the stamps.
        structure: Structure of galaxies beyond a Sérsic profile; none by default.
        noise: Camera that determines gain and depth.
        drive_base: Folder to which other paths may refer as ``${data.drive_base}``.
        generate_on_the_fly: Simulate each batch for its step; otherwise read batches from
            `train_data_path`.
        train_data_path: Folder of stored simulations, as written by ``deeplegato simulate
            --chunks``.
        drive_share: Fraction of each batch that is read from there, the rest being simulated.
        val_data_path: Folder of stored simulations used for validation in addition.
        cache_dir: Local folder to which chunks of a slow drive are copied; empty for none.
        real_data_path: Folder or table of real galaxies with reference parameters.
        real_share: Fraction of each batch that consists of real galaxies.
        num_train_samples: Images per epoch; replaces `training.steps_per_epoch` if given.
        pin_memory: Transfer batches through page-locked memory, if there is a GPU.
        prefetch_factor: Number of batches that each worker prepares in advance.
    """

    image_size: int = 128
    pixel_scale: float = 0.25
    zero_point: float = 30.5
    priors: dict[str, list[float]] = field(default_factory=dict)
    conditions: ConditionsConfig = field(default_factory=ConditionsConfig)
    structure: StructureConfig = field(default_factory=StructureConfig)
    noise: NoiseConfig = field(default_factory=NoiseConfig)
    drive_base: str = ""
    generate_on_the_fly: bool = True
    train_data_path: str = ""
    drive_share: float = 0.0
    val_data_path: str = ""
    cache_dir: str = ""
    real_data_path: str = ""
    real_share: float = 0.0
    num_train_samples: int | None = None
    pin_memory: bool = False
    prefetch_factor: int = 2


@dataclass
class BackboneConfig:
    """Image network.

    Attributes:
        type: ``"compact"`` for a Swin V2 with the sizes below, or the name of a timm model with its
            own sizes; a named Swin uses those that differ from the defaults here.
        pretrained: Initialise a named timm model with timm's weights.
        views: 2 for the central half at full resolution and the whole stamp binned 2 x 2, 1 for the
            whole stamp at full resolution, which has twice the side and needs twice the
            `patch_size` for the same cost.
        gradient_checkpointing: Reduce memory at the cost of time.
        embed_dim: Channels of the first stage (compact).
        depths: Blocks per stage (compact).
        num_heads: Attention heads per stage (compact).
        patch_size: Side of a patch (compact). [px of the view]
        window_size: Side of an attention window (compact). [patches]
        drop_path: Stochastic depth.
        layout_channels: Channels of each cell of the last feature map that are used with its
            position, in addition to the pooled features; 0 for pooled features only.
        feature_dim: Length of the feature vectors after a linear projection; None for the network's
            own length.
    """

    type: str = "compact"
    pretrained: bool = False
    views: int = 2
    gradient_checkpointing: bool = False
    embed_dim: int = 64
    depths: tuple[int, ...] = (2, 2, 6)
    num_heads: tuple[int, ...] = (2, 4, 8)
    patch_size: int = 4
    window_size: int = 8
    drop_path: float = 0.0
    layout_channels: int = 64
    feature_dim: int | None = None


@dataclass
class NPEConfig:
    """Posterior head.

    Attributes:
        type: Flow: ``"coupling_nsf"`` or ``"realnvp"`` (couplings, one pass in either direction),
            ``"nsf"`` or ``"maf"`` (autoregressive, seven passes per draw), with splines or affine
            transforms.
        num_flow_layers: Number of transforms in the flow.
        hidden_dim: Width of the hidden layers of each transform's network.
        num_blocks: Number of those hidden layers.
        dropout: Dropout between the layers of the trunk.
        whitening: Whether mean and log-variance heads whiten the coordinates before the flow.
        context_dim: Length of the flow's context vector.
        trunk_dim: Width of the layers between the backbone and the heads.
        spline_bins: Number of bins of each spline (spline flows).
        psf_channels: Number of channels of the PSF encoder's first layer.
    """

    type: str = "coupling_nsf"
    num_flow_layers: int = 6
    hidden_dim: int = 96
    num_blocks: int = 2
    dropout: float = 0.0
    whitening: bool = True
    context_dim: int = 64
    trunk_dim: int = 384
    spline_bins: int = 8
    psf_channels: int = 16


@dataclass
class ModelConfig:
    """Network: backbone and head.

    Attributes:
        backbone: Image network.
        npe: Posterior head.
        name: Name in the model card; empty for the name of its folder.
        init: Initial weights: a packaged model's name (``"default"``), a folder, or a hub id; empty
            for random weights.
    """

    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    npe: NPEConfig = field(default_factory=NPEConfig)
    name: str = ""
    init: str = ""


@dataclass
class Config:
    """Configuration of a training run."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    logging: LoggingConfig = field(default_factory=LoggingConfig)

    def to_dict(self) -> dict[str, Any]:
        """Returns nested dictionaries, as written to files."""
        return asdict(self)

    def to_record(self) -> dict[str, Any]:
        """Returns nested dictionaries for files that are shared: cards, models, checkpoints.

        Values taken from the environment (``${oc.env:...}``), such as tokens or paths, are replaced
        by their defaults, except in the model section, which describes the network.
        """
        record, defaults = self.to_dict(), Config().to_dict()
        for key in getattr(self, LOOKED_UP, ()):
            *sections, name = key.split(".")
            place, default = record, defaults
            for section in sections:
                place, default = place[section], default[section]
            if sections[:1] != ["model"] and isinstance(place.get(name), str | tuple | list):
                place[name] = default[name]
        return record


ConfigLike = Config | Source
"""Input of :func:`load_config`: a configuration, or its source."""


def load_config(source: ConfigLike = None, overrides: Sequence[str] = ()) -> Config:
    """Reads a configuration.

    Args:
        source: A YAML file, the name of a packaged one ("default" or "default.yaml"), nested
            dictionaries, a :class:`Config`, or None for the defaults.
        overrides: ``"section.key=value"`` strings, applied last.

    Returns:
        The configuration, with checked types. A :class:`Config` without overrides is returned
        unchanged; with overrides, a modified copy is returned.

    Raises:
        ConfigError: If the file is missing or a key is unknown or has the wrong type; the message
            contains the dotted name.

    Example:
        >>> load_config("cpu.yaml", ["training.batch_size=8"]).training.batch_size
        8
    """
    if not isinstance(source, Config):
        return merge_configs(Config, [source], overrides)
    if not overrides:
        return source
    made = merge_configs(type(source), [source.to_dict()], overrides)
    # Values from the environment of the given configuration keep their marks.
    keys = (*getattr(source, LOOKED_UP, ()), *getattr(made, LOOKED_UP, ()))
    setattr(made, LOOKED_UP, keys)
    return made


def merge_configs(
    schema: type[C],
    sources: Sequence[Source],
    overrides: Sequence[str] = (),
) -> C:
    """Merges several configurations under any schema.

    Args:
        schema: A dataclass, :class:`Config` or one derived from it.
        sources: See :func:`load_config`; later ones take precedence.
        overrides: ``"section.key=value"`` strings, applied last.

    Raises:
        ConfigError: See :func:`load_config`.
    """
    return cast(C, merge(schema, sources, overrides))
