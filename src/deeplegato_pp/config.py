"""Configuration: dataclasses are the schema, YAML fills them in, an unknown key is an error.

Every field is read somewhere; a setting that is not used cannot be set.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar, cast

from deeplegato_pp.errors import ConfigError

CONFIG_DIR = Path(__file__).with_name("configs")

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
        sky_gradient: Share of stamps with a residual gradient of the sky; at the edge of the stamp
            it is as large as the sky's offset is in the middle.
        uneven_noise: Share of stamps whose background noise varies smoothly.
        small_stamps: Share of stamps that fill only part of the square (the rest is masked).
        smallest_stamp: Smallest visible side. [px]
        bad_pixels: Share of stamps with dead pixels and columns.
        bleed_trails: Share of stamps crossed by the masked trail of a saturated star.
        spikes: Share of the diffraction-limited PSFs (one family in five) that show the spikes of
            a secondary mirror's vanes, four or six.
        masked_regions: Share of stamps with masked discs.
        neighbours: Share of stamps with neighbouring galaxies and stars.
        max_neighbours: Most neighbours in one of those.
        neighbours_masked: Share of the neighbours that a detection has masked, imperfectly.
    """

    psf_fwhm: tuple[float, float] = (1.5, 6.0)
    gain: tuple[float, float] = (1.0, 1e4)
    fixed_variance: float = 0.5
    source_in_map: float = 0.6
    read_fraction: float = 0.5
    sky_sigma: tuple[float, float] = (0.005, 0.1)
    sky_gradient: float = 0.3
    uneven_noise: float = 0.3
    small_stamps: float = 0.3
    smallest_stamp: int = 32
    bad_pixels: float = 0.3
    bleed_trails: float = 0.05
    spikes: float = 0.5
    masked_regions: float = 0.3
    neighbours: float = 0.3
    max_neighbours: int = 3
    neighbours_masked: float = 0.7

    def clean(self) -> ConditionsConfig:
        """Returns the same instruments without masks, neighbours or partial stamps."""
        return ConditionsConfig(
            **{
                **asdict(self),
                "source_in_map": 0.0,
                "sky_gradient": 0.0,
                "bleed_trails": 0.0,
                "uneven_noise": 0.0,
                "small_stamps": 0.0,
                "bad_pixels": 0.0,
                "masked_regions": 0.0,
                "neighbours": 0.0,
            }
        )


@dataclass
class DataConfig:
    """The simulator.

    Attributes:
        image_size: Side of the stamps. [px]
        pixel_scale: Of the reference instrument. [arcsec/px]
        zero_point: Magnitude of one background sigma per pixel at the reference instrument.
        priors: Bounds by parameter name; those left out keep their default.
        conditions: What the stamps look like beside the galaxy.
    """

    image_size: int = 128
    pixel_scale: float = 0.25
    zero_point: float = 30.5
    priors: dict[str, list[float]] = field(default_factory=dict)
    conditions: ConditionsConfig = field(default_factory=ConditionsConfig)


@dataclass
class BackboneConfig:
    """The image network.

    Attributes:
        type: ``"compact"`` for a Swin V2 of the sizes below, or the name of a timm model.
        pretrained: Start a named timm model from timm's weights.
        gradient_checkpointing: Trade time for memory.
        embed_dim: Channels of the first stage (compact).
        depths: Blocks per stage (compact).
        num_heads: Attention heads per stage (compact).
        patch_size: Side of a patch (compact). [px of the view]
        window_size: Side of an attention window (compact). [patches]
        drop_path: Stochastic depth (compact).
        layout_channels: Channels of each cell of the last feature map that are read together
            with its position, beside the pooled features; 0 for pooling alone.
    """

    type: str = "compact"
    pretrained: bool = False
    gradient_checkpointing: bool = False
    embed_dim: int = 64
    depths: tuple[int, ...] = (2, 2, 6)
    num_heads: tuple[int, ...] = (2, 4, 8)
    patch_size: int = 4
    window_size: int = 8
    drop_path: float = 0.0
    layout_channels: int = 64


@dataclass
class NPEConfig:
    """The posterior head.

    Attributes:
        type: Flow: ``"coupling_nsf"``, ``"nsf"`` or ``"maf"`` (the latter two autoregressive).
        num_flow_layers: Transforms in the flow.
        hidden_dim: Width of the two hidden layers of each transform's network.
        context_dim: Numbers that tell the flow about the image.
        trunk_dim: Width of the layers between the backbone and the heads.
        spline_bins: Bins of each spline (spline flows).
        psf_channels: Channels of the PSF encoder's first layer.
    """

    type: str = "coupling_nsf"
    num_flow_layers: int = 6
    hidden_dim: int = 96
    context_dim: int = 64
    trunk_dim: int = 384
    spline_bins: int = 8
    psf_channels: int = 16


@dataclass
class ModelConfig:
    """The network: backbone and head."""

    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    npe: NPEConfig = field(default_factory=NPEConfig)


@dataclass
class TrainingConfig:
    """How the network is trained.

    Attributes:
        seed: Of weights, stream and validation set.
        batch_size: Images per step.
        max_steps: Optimizer steps of the whole run, a multiple of `steps_per_epoch` or fewer.
        steps_per_epoch: Steps between validations and checkpoints.
        optimizer: A timm optimizer's name; ``"muon"`` uses AdamW for biases and norms.
        learning_rate: Peak learning rate.
        weight_decay: Decoupled weight decay.
        scheduler: ``"cosine"`` or ``"wsd"`` (warm-up, stable, decay over `decay_steps`).
        warmup_steps: Steps of linear warm-up.
        decay_steps: Steps of the final decay (wsd).
        gradient_clip: Largest norm of the gradient.
        precision: Lightning's precision, e.g. ``"32-true"`` or ``"bf16-mixed"`` (backbone only).
        ema_decay: Decay of the averaged weights that are validated and kept.
        gaussian_weight: Weight of the Gaussian term beside the flow's.
        num_workers: Processes that simulate; 0 simulates in the training process.
        accelerator: Lightning's accelerator.
    """

    seed: int = 0
    batch_size: int = 64
    max_steps: int = 6000
    steps_per_epoch: int = 250
    optimizer: str = "muon"
    learning_rate: float = 3e-3
    weight_decay: float = 0.01
    scheduler: str = "wsd"
    warmup_steps: int = 200
    decay_steps: int = 1500
    gradient_clip: float = 1.0
    precision: str = "bf16-mixed"
    ema_decay: float = 0.998
    gaussian_weight: float = 1.0
    num_workers: int = 0
    accelerator: str = "auto"


@dataclass
class ValidationConfig:
    """What the network is validated on.

    Attributes:
        num_images: Fixed simulations per validation set (one clean, one as in training), rounded
            down to whole batches.
        batch_size: Images per step.
    """

    num_images: int = 1024
    batch_size: int = 128


@dataclass
class LoggingConfig:
    """Where a run leaves its record.

    Attributes:
        output_dir: Folder of checkpoints, curve and model.
        every_n_steps: Steps between lines of ``steps.csv``, the training loss.
        progress_bar: Show a progress bar.
    """

    output_dir: str = "runs/default"
    every_n_steps: int = 50
    progress_bar: bool = True


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


def load_config(
    source: str | Path | dict[str, Any] | None = None, overrides: Sequence[str] = ()
) -> Config:
    """Reads a configuration.

    Args:
        source: A YAML file, the bare name of a packaged one ("default"), nested dictionaries,
            or None for the defaults.
        overrides: ``"section.key=value"`` strings, applied last.

    Returns:
        The configuration, types checked.

    Raises:
        ConfigError: If the file is missing or a key is unknown or of the wrong type; the message
            holds the dotted name.

    Example:
        >>> load_config(None, ["training.batch_size=8"]).training.batch_size
        8
    """
    return merge_configs(Config, [source], overrides)


def merge_configs(
    schema: type[C],
    sources: Sequence[str | Path | dict[str, Any] | None],
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
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        layers = [OmegaConf.structured(schema)]
        for source in sources:
            if isinstance(source, dict):
                layers.append(OmegaConf.create(source))
            elif source is not None:
                layers.append(OmegaConf.create(_read(_find(source))))
        layers.append(OmegaConf.from_dotlist(list(overrides)))
        merged = OmegaConf.merge(*layers)
        config: Any = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None) or "?"
        first_line = str(error).splitlines()[0]
        raise ConfigError(f"Configuration key {key}: {first_line}") from error
    return cast(C, config)


def _read(path: Path) -> dict[str, Any]:
    """Returns what a YAML file holds, interpolations unresolved."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        content = OmegaConf.to_container(OmegaConf.load(path))
    except OmegaConfBaseException:
        raise
    except Exception as error:  # the YAML library's own errors derive from no common builtin
        raise ConfigError(f"{path} is not YAML: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(
            f"{path} holds a {type(content).__name__}, and a configuration is a mapping of the "
            f"sections {', '.join(f.name for f in fields(Config))}."
        )
    return cast(dict[str, Any], content)


def _find(source: str | Path) -> Path:
    path = Path(source)
    if path.is_file():
        return path
    for name in (str(source), path.name):
        packaged = CONFIG_DIR / f"{name.removesuffix('.yaml')}.yaml"
        if packaged.is_file():
            return packaged
    known = ", ".join(
        sorted(str(p.relative_to(CONFIG_DIR).with_suffix("")) for p in CONFIG_DIR.rglob("*.yaml"))
    )
    raise ConfigError(f"No configuration file {source}. Give a YAML file or one of: {known}.")
