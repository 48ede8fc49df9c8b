"""Contents of ``calibration.json``: all figures, with their settings and versions."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from deeplegato_pp._version import __version__
from deeplegato_pp.calibration.assess import CURVE, assess, plain
from deeplegato_pp.calibration.galaxies import MeasuredGalaxies, prior_width
from deeplegato_pp.calibration.recalibration_effect import effect
from deeplegato_pp.calibration.settings import (
    BATCH,
    OWN,
    Settings,
    Simulations,
)
from deeplegato_pp.errors import FormatError
from deeplegato_pp.io.files import written_whole
from deeplegato_pp.models.storage import weights_digest
from deeplegato_pp.scene.parameters import NAMES

if TYPE_CHECKING:
    from deeplegato_pp.models import DeepLeGAToPP

FILE = "calibration.json"

FORMAT = 1
"""Format version, increased if the meaning of a name changes."""


def document(
    model: DeepLeGAToPP, simulations: Simulations, settings: Settings, galaxies: MeasuredGalaxies
) -> dict[str, Any]:
    """Returns the contents of ``calibration.json`` as strict JSON types.

    They consist of the figures, and the model, simulator, settings and versions behind them.
    """
    box = simulations.simulator.prior
    mendable = simulations.name == OWN and not settings.refine
    return {
        "format": FORMAT,
        "model": {
            "name": model.card.get("name", "unnamed"),
            "version": model.card.get("version", ""),
            "weights": weights_digest(model),
            "prior": model.prior.to_dict(),
            "data": plain(asdict(model.config.data)),
        },
        "simulator": plain(simulations.describe()),
        "settings": {**asdict(settings), "batch": BATCH},
        "versions": {
            "deeplegato-pp": __version__,
            "torch": str(torch.__version__),
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        **assess(galaxies, prior_width([getattr(box, name) for name in NAMES])),
        "recalibration": effect(galaxies, settings.draws, CURVE) if mendable else None,
    }


def write_document(content: Mapping[str, Any], path: Path) -> None:
    """Writes strict JSON atomically."""
    text = json.dumps(content, indent=1, allow_nan=False)
    with written_whole(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def read_document(path: Path) -> dict[str, Any]:
    """Reads a ``calibration.json``.

    Raises:
        FormatError: If it is missing, not JSON, or of another format.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FormatError(
            f"{path} is no calibration: {error}. Run deeplegato calibrate."
        ) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise FormatError(f"{path} is not of format {FORMAT}. It is of another version.")
    return content


def headline(content: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the figures shown in model cards and by ``deeplegato info``."""
    overall, reliability = content["overall"], content["reliability"]
    differences = {name: overall["largest_difference"][name] for name in NAMES}
    worst = max(differences, key=lambda name: abs(differences[name]))
    verdict = content["verdict"]
    return {
        "galaxies": overall["galaxies"],
        "refined": content["settings"]["refine"],
        "seed": content["settings"]["seed"],
        "weights": content["model"]["weights"],
        "coverage": overall["coverage"],
        "noise_widths": overall["noise_widths"],
        "largest_difference": {"parameter": worst, "value": differences[worst]},
        "joint_difference": overall["largest_difference"]["joint"],
        "worst_cell": reliability["worst"],
        "cells_meeting_goal": reliability["share_meeting_goal"],
        "cells_within_goal_and_band": reliability["share_within_goal_and_band"],
        "rmse_over_prior": overall["rmse_over_prior"],
        "nll": overall["nll"],
        "gross_failures": overall["gross_failures"],
        "bad": None if verdict is None else verdict["quality"]["bad"],
        "false_alarms": None if verdict is None else verdict["false_alarms"],
        "caught": None if verdict is None else verdict["caught"],
        "caught_as_bad": None if verdict is None else verdict["caught_as_bad"],
        "judged": None if verdict is None else verdict["galaxies"],
        "judged_failures": None if verdict is None else verdict["gross_failures"],
    }


def is_own(content: Mapping[str, Any]) -> bool:
    """Returns whether the simulations are those of the model's training."""
    return bool(content["simulator"]["name"] == OWN)
