"""Model card: README.md of a folder of weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from deeplegato_pp.config.schema import Config
from deeplegato_pp.scene.parameters import NAMES, PARAMETERS
from deeplegato_pp.scene.prior import PriorBox

CARD = "README.md"

MODEL = ("<!-- model: begin -->", "<!-- model: end -->")
CALIBRATION = ("<!-- calibration: begin -->", "<!-- calibration: end -->")
"""Markers around the generated parts of the card."""

_FRONT = """---
library_name: deeplegato-pp
pipeline_tag: image-feature-extraction
tags: [astronomy, galaxies, simulation-based-inference, normalizing-flows]
---
"""
"""Metadata read by the Hugging Face hub."""


def model_card(name: str, config: Config, card: Mapping[str, Any], weights: int) -> str:
    """Returns the description of a model, in Markdown.

    Args:
        name: Name of the model.
        config: Configuration of the model.
        card: Its training record, as stored with the weights.
        weights: Number of weights.
    """
    parts = [
        f"# The model `{name}`",
        f"{_network(config)}: {weights / 1e6:.2f} million weights. It takes stamps of "
        f"{config.data.image_size} px with noise map, mask and PSF, and returns the posterior of "
        f"{len(NAMES)} Sérsic parameters.",
        "```python\nfrom deeplegato_pp import Predictor\n\n"
        'predictor = Predictor.from_pretrained("this folder, or owner/model@revision")\n```',
        "## Prior\n\n" + "\n".join(_prior_table(config)),
        "## Training\n\n" + "\n".join(_table(_training(config, card))),
        "## What the stamps looked like\n\n"
        + "\n".join(_table(_entries(config.to_dict()["data"]["conditions"]))),
        "`config.json` has all of the configuration. Outside these ranges the network has seen "
        "nothing; `deeplegato predict` flags what is unfamiliar, and refines by the exact "
        "likelihood.",
    ]
    return "\n\n".join(parts)


def write_model_card(folder: Path, text: str) -> Path | None:
    """Writes the card, or updates the part between its markers.

    A card without markers, written by hand, is left unchanged.

    Returns:
        Path of the file, or None if it was left unchanged.
    """
    path = folder / CARD
    before = path.read_text(encoding="utf-8") if path.is_file() else f"{_FRONT}{''.join(MODEL)}\n"
    after = with_part(before, MODEL, text)
    if after is None:
        return None
    _write(path, after)
    return path


def without_calibration(folder: Path) -> None:
    """Removes calibration figures of other weights from a card."""
    path = folder / CARD
    if path.is_file():
        before = path.read_text(encoding="utf-8")
        after = with_part(before, CALIBRATION, "Not calibrated yet: `deeplegato calibrate`.")
        if after is not None:
            _write(path, after)


def with_part(card: str, marks: tuple[str, str], text: str) -> str | None:
    """Returns a card with new text between two markers; None if it lacks them."""
    begin, end = marks
    if begin not in card or end not in card:
        return None
    head, rest = card.split(begin, 1)
    return f"{head}{begin}\n{text}\n{end}{rest.split(end, 1)[1]}"


def _write(path: Path, text: str) -> None:
    """Writes a file atomically."""
    part = path.with_name(f"{path.name}.part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def _network(config: Config) -> str:
    backbone, npe = config.model.backbone, config.model.npe
    image = "A compact Swin V2" if backbone.type == "compact" else f"`{backbone.type}`"
    return (
        f"{image} on {'two views' if backbone.views == 2 else 'one view'} of the stamp, a PSF "
        "encoder, and a "
        f"{'whitened ' if npe.whitening else ''}flow (`{npe.type}`, {npe.num_flow_layers} layers)"
    )


def _prior_table(config: Config) -> Iterator[str]:
    data = config.data
    box = PriorBox.from_mapping(data.priors)
    yield (
        f"At {data.pixel_scale:g} arcsec/px, one background sigma per pixel at magnitude "
        f"{data.zero_point:g}; it shifts with an image's pixel scale and depth."
    )
    yield ""
    yield "| parameter | unit | lower | upper | density |"
    yield "|---|---|---|---|---|"
    for p in PARAMETERS:
        lower, upper = getattr(box, p.name)
        density = "log-uniform" if p.scale == "log" else "uniform"
        yield f"| {p.name} | {p.unit} | {lower:g} | {upper:g} | {density} |"


def _training(config: Config, card: Mapping[str, Any]) -> dict[str, Any]:
    training = config.training
    if not card.get("training"):
        return {"record": "none was kept"}
    return {
        **_entries(card["training"]),
        "optimizer": f"{training.optimizer}, learning rate {training.learning_rate:g}, "
        f"schedule {training.scheduler}, batch {training.batch_size} x "
        f"{training.accumulation_steps}, {training.precision}",
        "weights it began with": config.model.init or "random",
    }


def _entries(record: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flattens nested entries to dotted names."""
    entries: dict[str, Any] = {}
    for key, value in record.items():
        if isinstance(value, Mapping):
            entries |= _entries(value, f"{prefix}{key}.")
        else:
            entries[f"{prefix}{key}"] = value
    return entries


def _table(entries: Mapping[str, Any]) -> Iterator[str]:
    yield "| | |"
    yield "|---|---|"
    for key, value in entries.items():
        shown = " to ".join(map(str, value)) if isinstance(value, list | tuple) else value
        yield f"| {key.replace('|', '/')} | {shown} |"
