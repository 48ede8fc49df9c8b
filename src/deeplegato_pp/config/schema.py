"""Configuration: dataclasses are the schema, YAML fills them in, an unknown key is an error.

Every field is read somewhere; a setting that is not used cannot be set. How files are found and
laid over one another is in `config_layers`, how keys may be spelt in `config_spelling`.
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
    """What training stamps look like, beside the galaxy; lengths in pixels, fluxes in sigmas.

    Attributes:
        psf_fwhm: Range of the PSF's width, log-uniform. [px]
        gain: Range of electrons per background sigma, log-uniform.
        fixed_variance: Share of stamps that come with a total noise map and no gain.
        source_in_map: Share of those maps that hold the source's own shot noise, as estimated
            from the smoothed noisy image; the others are flat backgrounds.
        read_fraction: Largest part of the background's variance that is read noise.
        sky_sigma: Range of the sky offset's standard deviation, log-uniform. [background sigma]
        correlated_noise: Share of stamps whose noise is correlated, as drizzling makes it. A
            network trained with any has `noise_correlation` as an input.
        noise_correlation: Range for those of the variance of the noise of sums over many pixels,
            over that of independent ones, log-uniform.
        sky_gradient: Share of stamps with a residual gradient of the sky; at the edge of the stamp
            it is as large as the sky's offset is in the middle.
        uneven_noise: Share of stamps whose background noise varies smoothly.
        small_stamps: Share of stamps that fill only part of the square (the rest is masked).
        smallest_stamp: Smallest visible side. [px]
        bad_pixels: Share of stamps with dead pixels and columns.
        bleed_trails: Share of stamps crossed by the masked trail of a saturated star.
        saturated: Share of stamps whose pixels above a drawn level, 50 to 5,000 background sigmas,
            are masked.
        spikes: Share of the telescopes' PSFs (a third of all) that show the spikes of a secondary
            mirror's vanes, four or six.
        aberrated: Share of those with aberrations in the wavefront, and of the other PSFs that
            are lopsided and three-cornered.
        psf_offset: Standard deviation of a PSF's middle about its array's, along x and y. [px]
        psf_error: Relative error of the PSF's width, one sigma: images are made with a PSF so much
            wider or narrower than the one that is told.
        psf_error_input: Draw each stamp's error uniformly between 0 and `psf_error`, and give it to
            the network, which has it as an input then.
        masked_regions: Share of stamps with masked discs.
        neighbours: Share of stamps with neighbouring galaxies and stars.
        max_neighbours: Most neighbours in one of those.
        neighbours_masked: Share of the neighbours that a detection has masked, imperfectly.
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
        """Returns what was met, by name: noise that was never correlated had c = 1."""
        met = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
        if not self.correlated_noise:
            met["noise_correlation"] = [1.0, 1.0]
        return met

    def clean(self) -> ConditionsConfig:
        """Returns the same instruments without masks, neighbours or partial stamps."""
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
    """A camera, from which gain and depth follow; with a gain it replaces what others say of them.

    Attributes:
        gain: Electrons per image unit, or None for no camera.
        sky_background: Image units per pixel.
        read_noise: Electrons per pixel.
        zero_point: Magnitude of one image unit; None leaves `data.zero_point` as it is.
        spread: Background sigmas reach this factor to either side, log-uniform: skies and
            exposures differ.
    """

    gain: float | None = None
    sky_background: float = 0.0
    read_noise: float = 0.0
    zero_point: float | None = None
    spread: float = 2.0


@dataclass
class DataConfig:
    """What is trained on: the simulator, stored simulations, real galaxies.

    Attributes:
        image_size: Side of the stamps. [px]
        pixel_scale: Of the instrument. [arcsec/px]
        zero_point: Magnitude of one background sigma per pixel at the instrument.
        priors: Bounds by parameter name, at the instrument; those left out keep their default.
        conditions: What the stamps look like beside the galaxy.
        structure: Which structure galaxies have beyond a Sérsic profile; none by default.
        noise: A camera that gain and depth follow from.
        drive_base: Folder that other paths may refer to as ``${data.drive_base}``.
        generate_on_the_fly: Simulate each batch for its step; if not, take them from
            `train_data_path`.
        train_data_path: Folder of stored simulations, as ``deeplegato simulate --chunks`` writes.
        drive_share: Share of each batch that is taken from there beside fresh simulations.
        val_data_path: Folder of stored simulations that are validated on as well.
        cache_dir: Local folder that chunks of a slow drive are copied to; empty for none.
        real_data_path: Folder or table of real galaxies with reference parameters.
        real_share: Share of each batch that is taken from there.
        num_train_samples: Images per epoch; given, it takes the place of
            `training.steps_per_epoch`.
        pin_memory: Hand batches over in page-locked memory, where there is a GPU.
        prefetch_factor: Batches that each worker makes ahead.
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
    """The image network.

    Attributes:
        type: ``"compact"`` for a Swin V2 of the sizes below, or the name of a timm model, whose
            sizes are its own; a named Swin takes those that differ from the defaults here.
        pretrained: Start a named timm model from timm's weights.
        views: 2 for the central half at full resolution beside the whole stamp binned 2 x 2, 1
            for the whole stamp at full resolution, which has twice the side and asks for twice
            the `patch_size` at the same cost.
        gradient_checkpointing: Trade time for memory.
        embed_dim: Channels of the first stage (compact).
        depths: Blocks per stage (compact).
        num_heads: Attention heads per stage (compact).
        patch_size: Side of a patch (compact). [px of the view]
        window_size: Side of an attention window (compact). [patches]
        drop_path: Stochastic depth.
        layout_channels: Channels of each cell of the last feature map that are read together
            with its position, beside the pooled features; 0 for pooling alone.
        feature_dim: Length of the feature vectors, to which a linear layer projects those of the
            network; None for the network's own.
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
    """The posterior head.

    Attributes:
        type: Flow: ``"coupling_nsf"`` or ``"realnvp"`` (couplings, one pass either way), ``"nsf"``
            or ``"maf"`` (autoregressive, seven passes per draw); splines or affine.
        num_flow_layers: Transforms in the flow.
        hidden_dim: Width of the hidden layers of each transform's network.
        num_blocks: Number of those hidden layers.
        dropout: Between the layers of the trunk.
        whitening: Let mean and log-variance heads whiten the coordinates before the flow.
        context_dim: Numbers that tell the flow about the image.
        trunk_dim: Width of the layers between the backbone and the heads.
        spline_bins: Bins of each spline (spline flows).
        psf_channels: Channels of the PSF encoder's first layer.
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
    """The network: backbone and head.

    Attributes:
        backbone: The image network.
        npe: The posterior head.
        name: What its card calls it; empty for the name of its folder.
        init: Weights to start from: a packaged model's name (``"default"``), a folder, or a hub
            id; empty for random ones.
    """

    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    npe: NPEConfig = field(default_factory=NPEConfig)
    name: str = ""
    init: str = ""


@dataclass
class Config:
    """Everything a training run needs."""

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    logging: LoggingConfig = field(default_factory=LoggingConfig)

    def to_dict(self) -> dict[str, Any]:
        """Returns plain nested dictionaries, as written to files."""
        return asdict(self)

    def to_record(self) -> dict[str, Any]:
        """Returns the same for files that are passed on: cards, models, checkpoints.

        Texts that a run looked up in its environment (``${oc.env:...}``), a token or a path say,
        are left at their defaults; those of the model's own section describe the network and stay.
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
"""What :func:`load_config` takes: a configuration, or what one is made from."""


def load_config(source: ConfigLike = None, overrides: Sequence[str] = ()) -> Config:
    """Reads a configuration.

    Args:
        source: A YAML file, the name of a packaged one ("default" or "default.yaml"), nested
            dictionaries, a :class:`Config`, or None for the defaults.
        overrides: ``"section.key=value"`` strings, applied last.

    Returns:
        The configuration, types checked. A :class:`Config` without overrides is returned as it
        is; with overrides, a changed copy is.

    Raises:
        ConfigError: If the file is missing or a key is unknown or of the wrong type; the message
            holds the dotted name.

    Example:
        >>> load_config("cpu.yaml", ["training.batch_size=8"]).training.batch_size
        8
    """
    if not isinstance(source, Config):
        return merge_configs(Config, [source], overrides)
    if not overrides:
        return source
    made = merge_configs(type(source), [source.to_dict()], overrides)
    # What the given configuration had looked up stays so.
    keys = (*getattr(source, LOOKED_UP, ()), *getattr(made, LOOKED_UP, ()))
    setattr(made, LOOKED_UP, keys)
    return made


def merge_configs(
    schema: type[C],
    sources: Sequence[Source],
    overrides: Sequence[str] = (),
) -> C:
    """Reads several configurations over one another, under any schema.

    Args:
        schema: A dataclass, :class:`Config` or one derived from it.
        sources: As :func:`load_config` takes them; later ones win.
        overrides: ``"section.key=value"`` strings, applied last.

    Raises:
        ConfigError: As :func:`load_config`.
    """
    return cast(C, merge(schema, sources, overrides))
