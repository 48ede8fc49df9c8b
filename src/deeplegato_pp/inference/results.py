"""Posteriors as plain dictionaries and text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from deeplegato_pp.inference.posterior.summary import parameter_summaries
from deeplegato_pp.scene.parameters import PARAMETERS
from deeplegato_pp.stats.weighted import QUANTILES

if TYPE_CHECKING:
    from deeplegato_pp.inference.posterior.posterior import Posterior

_LOWER, _UPPER = (list(QUANTILES).index(q) for q in ("q025", "q975"))


def as_dictionary(posterior: Posterior, return_samples: bool = False) -> dict[str, Any]:
    """Returns a posterior as a dictionary; see :meth:`Predictor.predict` for its entries."""
    table = [parameter_summaries(posterior, i) for i in range(len(posterior))]
    columns = {
        "mean": np.array([[s.value for s in row] for row in table]),
        "std": np.array([[s.std for s in row] for row in table]),
        "ci_lower": np.array([[s.quantiles[_LOWER] for s in row] for row in table]),
        "ci_upper": np.array([[s.quantiles[_UPPER] for s in row] for row in table]),
    }
    keys = {"value": "mean", "std": "std", "ci_lower": "ci_lower", "ci_upper": "ci_upper"}
    params: dict[str, dict[str, Any]] = {}
    for i, p in enumerate(PARAMETERS):
        entry: dict[str, Any] = {k: columns[name][:, i] for k, name in keys.items()}
        if posterior.single:
            entry = {k: float(v[0]) for k, v in entry.items()}
        params[p.name] = {**entry, "unit": p.unit}
    if posterior.single:
        columns = {k: v[0] for k, v in columns.items()}
    result: dict[str, Any] = {"params": params, **columns}
    result["flags"] = posterior.flag_names
    result["quality"] = posterior.quality
    result["posterior"] = posterior
    if return_samples:
        result["samples"] = posterior.samples.numpy()
    return result


def as_text(result: dict[str, Any]) -> str:
    """Returns the text printed by :meth:`Predictor.print_results`.

    For many galaxies, one block each.
    """
    single = result["posterior"].single
    keys = ("mean", "std", "ci_lower", "ci_upper")
    columns = [result[k][None] if single else result[k] for k in keys]
    blocks = []
    for row in range(len(columns[0])):
        flags, quality = (result[k] if single else result[k][row] for k in ("flags", "quality"))
        lines = [f"{'parameter':<18}{'value':>12}{'std':>12}   95 % interval"]
        for i, p in enumerate(PARAMETERS):
            value, std, lower, upper = (float(column[row, i]) for column in columns)
            interval = f"[{lower:.5g}, {upper:.5g}] {p.unit}".rstrip()
            lines.append(f"{p.name:<18}{value:>12.5g}{std:>12.3g}   {interval}")
        lines.append(f"quality: {quality}, flags: {', '.join(flags) or 'none'}")
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) + "\n"
