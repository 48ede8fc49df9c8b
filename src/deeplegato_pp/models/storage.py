"""Storage of models: weights in safetensors, configuration and metadata in JSON."""

from __future__ import annotations

import filecmp
import hashlib
import json
import logging
import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from deeplegato_pp._version import __version__
from deeplegato_pp.config.schema import Config, load_config
from deeplegato_pp.errors import ConfigError, FormatError, ModelNotFoundError
from deeplegato_pp.models.card import CARD, model_card, without_calibration, write_model_card
from deeplegato_pp.models.untrusted import (
    FORMATS,
    check_format,
    check_sizes,
    check_weights,
    read_json,
    refuse_references,
)
from deeplegato_pp.scene.prior import PriorBox

if TYPE_CHECKING:
    from torch import Tensor, nn

logger = logging.getLogger(__name__)

PACKAGED = Path(__file__).parents[1] / "pretrained"
DEFAULT_MODEL = "default"
WEIGHTS = "model.safetensors"
CONFIG = "config.json"
REFERENCE = "reference.safetensors"
"""Features of training images, for detection of unfamiliar images; optional."""

RECALIBRATION = "recalibration.json"
"""Recalibration of the posterior quantiles; optional."""

FIGURES = "figures.json"
"""Headline figures of the calibration; optional."""

HUB_TIMEOUT = 5.0
"""Timeout of requests to the hub. [s]"""

_COMMIT = re.compile(r"[0-9a-f]{40}")


def save(folder: Path, model: nn.Module, config: Config, card: dict[str, Any]) -> Path:
    """Writes weights, configuration and card, each file atomically.

    Files measured with other weights in the same folder are removed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    text = json.dumps(
        {
            "format": FORMATS[-1],
            "version": __version__,
            "config": config.to_record(),
            "prior": PriorBox.from_mapping(config.data.priors).to_dict(),
            "reference_instrument": {
                "pixel_scale": config.data.pixel_scale,
                "zero_point": config.data.zero_point,
            },
            "card": card,
        },
        indent=1,
        allow_nan=False,
    )
    (folder / f"{CONFIG}.part").write_text(text + "\n")
    save_file(weights, folder / f"{WEIGHTS}.part")
    # safetensors makes files readable by their owner only, but a model is shared.
    shutil.copymode(folder / f"{CONFIG}.part", folder / f"{WEIGHTS}.part")
    before = folder / WEIGHTS
    if before.is_file() and not filecmp.cmp(before, folder / f"{WEIGHTS}.part", shallow=False):
        for name in (REFERENCE, RECALIBRATION, FIGURES):
            (folder / name).unlink(missing_ok=True)
        without_calibration(folder)
    for name in (WEIGHTS, CONFIG):
        os.replace(folder / f"{name}.part", folder / name)
    count = sum(p.numel() for p in model.parameters())
    write_model_card(folder, model_card(card.get("name", folder.name), config, card, count))
    return folder


def load(name: str | Path | None) -> tuple[Config, dict[str, Any], dict[str, Tensor]]:
    """Returns configuration, card and weights of a model.

    Raises:
        ModelNotFoundError: If the model does not exist.
        FormatError: If its files cannot be read.
    """
    folder = find(name)
    try:
        content = read_json(folder / CONFIG)
        check_format(content, folder / CONFIG)
        refuse_references(content["config"], folder / CONFIG)
        config = load_config(content["config"])
        card = {"name": _name_of(folder), "version": content["version"], **content["card"]}
        check_sizes(config, folder / WEIGHTS)
        state = load_file(folder / WEIGHTS)
    except FormatError:
        raise
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        reason = f"no entry {error}" if isinstance(error, KeyError) else error
        remedy = " It is of another version." if isinstance(error, ConfigError) else ""
        raise FormatError(f"The model in {folder} cannot be read: {reason}{remedy}") from error
    return config, card, state


def load_reference(folder: Path) -> dict[str, Tensor]:
    """Returns the tensors fitted to features of a model's training images; empty if missing.

    Raises:
        FormatError: If the file cannot be read.
    """
    path = folder / REFERENCE
    if not path.is_file():
        return {}
    try:
        return load_file(path)
    except (OSError, ValueError, SafetensorError) as error:
        raise FormatError(f"{path} cannot be read: {error}. Fit it anew or delete it.") from error


def save_reference(folder: Path, tensors: dict[str, Tensor]) -> Path:
    """Writes the tensors fitted to features of a model's training images, atomically."""
    part = folder / f"{REFERENCE}.part"
    save_file(tensors, part)
    shutil.copymode(folder / CONFIG, part)
    os.replace(part, folder / REFERENCE)
    return folder / REFERENCE


def find(name: str | Path | None) -> Path:
    """Returns the folder of a model: given, packaged, or downloaded from the hub.

    Only names of the form "owner/model" or "owner/model@revision" that are not folders are
    requested from the hub. A revision is a branch, a tag or a commit, by default the newest.
    Downloads are cached (in the folder ``HF_HOME``), and used if the hub does not respond; a cached
    commit given in full is used without a request.

    Raises:
        ModelNotFoundError: If the model does not exist.
    """
    text = DEFAULT_MODEL if name is None else str(name)
    for folder in (Path(text), PACKAGED / text):
        if (folder / CONFIG).is_file():
            return folder
    repository, _, revision = text.partition("@")
    if repository.count("/") == 1 and not text.startswith((".", "/", "~")):
        return _from_hub(repository, revision or None)
    packaged = ", ".join(sorted(p.name for p in PACKAGED.glob("*") if p.is_dir())) or "none"
    raise ModelNotFoundError(
        f"No model {text!r}: neither a folder with {CONFIG} nor a packaged model ({packaged}). "
        "A hub id has the form owner/model, or owner/model@revision."
    )


def _from_hub(repository: str, revision: str | None = None) -> Path:
    """Downloads a model, or uses the cache if the hub does not respond."""
    from huggingface_hub import HfApi

    wanted = f"{repository}@{revision}" if revision else repository
    pinned = revision is not None and _COMMIT.fullmatch(revision) is not None
    if pinned and (folder := _fetched(repository, revision)) is not None:
        return folder
    # A request with its own timeout comes first, because the download waits long for a hub that
    # does not respond. The client raises errors of several libraries without a common base.
    try:
        commit = HfApi().model_info(repository, revision=revision, timeout=HUB_TIMEOUT).sha
        return _snapshot(repository, commit, local=False)
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    folder = _fetched(repository, revision)
    if folder is None:
        raise ModelNotFoundError(
            f"No folder {wanted!r}, and the hub did not give a model of that name ({reason}). "
            "Check the name and the connection, or give a folder."
        )
    logger.warning(
        "The hub did not give %s (%s): using commit %s, fetched before.",
        wanted,
        reason,
        folder.name,
    )
    return folder


def _fetched(repository: str, revision: str | None) -> Path | None:
    """Returns the cached folder of a model, None if it is not cached."""
    try:
        folder = _snapshot(repository, revision, local=True)
    except Exception:  # the client's errors have no common base
        return None
    return folder if (folder / CONFIG).is_file() and (folder / WEIGHTS).is_file() else None


def _snapshot(repository: str, revision: str | None, *, local: bool) -> Path:
    from huggingface_hub import snapshot_download

    path = snapshot_download(
        repository,
        revision=revision,
        allow_patterns=[WEIGHTS, CONFIG, REFERENCE, RECALIBRATION, FIGURES, CARD],
        local_files_only=local,
    )
    return Path(path)


def _name_of(folder: Path) -> str:
    """Returns the name of a model's folder; id and commit for models from the hub."""
    if folder.parent.name != "snapshots":
        return folder.name
    repository = folder.parent.parent.name.removeprefix("models--").replace("--", "/")
    return f"{repository}@{folder.name[:8]}"


def weights_digest(model: nn.Module) -> str:
    """Returns a digest of a network's weights."""
    digest = hashlib.blake2b(digest_size=8)
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().float().numpy().tobytes())
    return digest.hexdigest()


def fill(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Loads weights into a network.

    Raises:
        FormatError: If names, shapes or types differ, or a weight is not finite; the message names
            them.
    """
    own = model.state_dict()
    missing, extra = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    shapes = sorted(k for k in own.keys() & state.keys() if own[k].shape != state[k].shape)
    if missing or extra or shapes:
        raise FormatError(
            f"The weights do not fit the configuration: missing {missing[:3]}, "
            f"unexpected {extra[:3]}, other shapes {shapes[:3]}. They belong to another version."
        )
    check_weights(own, state)
    model.load_state_dict(state)
