"""Package, model card, prior and parameters, for ``deeplegato info``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.table import Table


def info(
    model: Annotated[
        str | None,
        typer.Option("--model", help="Packaged model, folder or hub id.", show_default="default"),
    ] = None,
) -> None:
    """Print the version, the parameters, and a model's prior and training record."""
    from rich.console import Console

    from deeplegato_pp._version import __version__
    from deeplegato_pp.models.storage import find

    folder = find(model)  # before heavy imports, so that a wrong name fails immediately
    from deeplegato_pp.models import DeepLeGAToPP

    network = DeepLeGAToPP.from_pretrained(folder)
    weights = sum(p.numel() for p in network.parameters())
    console = Console(soft_wrap=True, highlight=False)
    console.print(f"deeplegato-pp {__version__}")
    console.print(_parameter_table(network.prior))
    console.print(
        "The bounds hold at the reference instrument (0.25 arcsec/px, one background sigma at zero "
        "point 30.5) and shift with the image's."
    )
    console.print(
        f"model: {network.card.get('name', 'unnamed')}, {weights / 1e6:.1f} million weights, "
        f"{network.image_size} px stamps"
    )
    for key, value in flatten(network.card):
        console.print(f"  {key}: {value}", markup=False)
    for line in _calibration(folder):
        console.print(line, markup=False)


def _calibration(folder: Path) -> list[str]:
    """Returns the headline figures of a model's calibration, or how to obtain them."""
    from deeplegato_pp.calibration.card import headline_lines, read_figures

    lines = headline_lines(read_figures(folder))
    if not lines:
        return ["calibration: not measured. Run deeplegato calibrate --write-card."]
    return ["calibration:", *(f"  {line}" for line in lines)]


def flatten(card: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Converts nested entries to dotted keys with values.

    Example:
        >>> flatten({"a": {"b": 1}, "c": [1, 2]})
        [('a.b', 1), ('c', [1, 2])]
    """
    entries: list[tuple[str, Any]] = []
    for key, value in card.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            entries += flatten(value, f"{name}.")
        else:
            entries.append((name, value))
    return entries


def _parameter_table(prior: Any) -> Table:
    from rich.table import Table

    from deeplegato_pp.scene.parameters import PARAMETERS

    table = Table(box=None, pad_edge=False)
    for heading in ("parameter", "unit", "lower", "upper", "prior", "meaning"):
        table.add_column(heading, no_wrap=heading != "meaning")
    for p in PARAMETERS:
        lower, upper = getattr(prior, p.name)
        density = "log-uniform" if p.scale == "log" else "uniform"
        table.add_row(p.name, p.unit, f"{lower:g}", f"{upper:g}", density, p.meaning)
    return table
