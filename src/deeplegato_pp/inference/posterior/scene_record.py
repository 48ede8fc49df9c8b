"""Results for a galaxy under hypotheses of several components, and their table columns."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float

from deeplegato_pp.arrays import Array
from deeplegato_pp.inference.posterior.draw_columns import columns_of_draws, lines_on, names_of
from deeplegato_pp.scene.galaxy_scene import SCENES
from deeplegato_pp.scene.parameters import NAMES, NUM_PARAMETERS, PARAMETERS

PARTS: dict[str, tuple[str, ...]] = {
    "sersic": (),
    "sersic+point": ("host", "point"),
    "bulge+disc": ("bulge", "disc"),
    "sersic+sersic": ("inner", "outer"),
}
"""Parts of each scene; the flux fraction of the part named by `SHARES` is a column too."""

SHARES = {
    "sersic+point": "point_to_total",
    "bulge+disc": "bulge_to_total",
    "sersic+sersic": "inner_to_total",
}

OF_THE_SUM = ("magnitude", "effective_radius", "center_x", "center_y")
"""Plain columns that describe the sum if a scene of several components is the best."""

_OWN = tuple(p for p in PARAMETERS if not p.name.startswith("center"))


@dataclass(frozen=True, eq=False)
class SceneRecord:
    """Comparison of one galaxy's hypotheses, and draws under the best of them.

    Attributes:
        compared: Names of the hypotheses, the single profile first.
        best: Hypothesis favoured by the tempered odds, or requested by the user.
        log_evidence: ln Z by name.
        log_evidence_error: Standard error of ln Z by name.
        tempered: ln Z by name with tempered differences of ln L.
        draws: Draws of the best hypothesis' columns, in the user's units, each with shape (S,);
            empty for the single profile, whose draws are the posterior's own.
        noise_draws: The same under the stated noise alone.
        weights: Weights of the draws, with sum 1, with shape (S,).
        ess: Effective sample size of the draws.
        khat: Pareto k-hat of the weights.
        num_modes: Number of modes found.
    """

    compared: tuple[str, ...]
    best: str
    log_evidence: Mapping[str, float]
    log_evidence_error: Mapping[str, float]
    tempered: Mapping[str, float]
    draws: Mapping[str, Float[Array, " s"]]
    noise_draws: Mapping[str, Float[Array, " s"]]
    weights: Float[Array, " s"] | None
    ess: float = math.nan
    khat: float = math.nan
    num_modes: int = 0

    @property
    def odds(self) -> float:
        """Tempered odds of the best against the next hypothesis, with equal prior odds."""
        others = [z for name, z in self.tempered.items() if name != self.best]
        if not others:
            return math.nan
        return math.exp(min(self.tempered[self.best] - max(others), 700.0))


def key_of(scene: str) -> str:
    """Returns a scene's name as used in column names.

    Example:
        >>> key_of("bulge+disc")
        'bulge_disc'
    """
    return scene.replace("+", "_")


def parameter_columns(scenes: Sequence[str]) -> dict[str, tuple[str, str, float | None]]:
    """Returns unit, meaning and period of the columns of scenes' parts.

    Example:
        >>> list(parameter_columns(["sersic+point"]))[-2:]
        ['point_magnitude', 'point_to_total']
    """
    columns: dict[str, tuple[str, str, float | None]] = {}
    for scene in scenes:
        for part in PARTS[scene]:
            own = _OWN[:1] if part == "point" else _OWN
            columns |= {
                f"{part}_{p.name}": (p.unit, f"{p.meaning}, of the {part}", p.period) for p in own
            }
        if scene in SHARES:
            part = SHARES[scene].removesuffix("_to_total")
            columns[SHARES[scene]] = ("", f"flux of the {part} divided by the total flux", None)
    return columns


def units(scenes: Sequence[str] = SCENES) -> dict[str, str]:
    """Returns the unit of every column that scenes add; "" for pure numbers."""
    found = {"best_scene": "", "scene_odds": "", "scene_ess": "", "scene_khat": ""}
    for scene in scenes:
        found |= dict.fromkeys(_evidence_names(scene), "")
    for name, (unit, _, _) in parameter_columns(scenes).items():
        found |= dict.fromkeys(names_of(name), unit)
    return found


def descriptions() -> dict[str, str]:
    """Returns a one-line description of each of these columns."""
    lines = {
        "best_scene": "hypothesis favoured by the tempered odds, or requested",
        "scene_odds": "tempered odds of the best scene against the next",
        "scene_ess": "effective sample size of the best scene's draws",
        "scene_khat": "Pareto k-hat of the best scene's weights",
    }
    for scene in SCENES:
        log_z, error, tempered = _evidence_names(scene)
        lines |= {
            log_z: f"natural logarithm of the evidence of {scene}",
            error: f"standard error of {log_z}",
            tempered: f"{log_z} with tempered differences of ln L",
        }
    for name, (_, meaning, period) in parameter_columns(SCENES).items():
        lines |= lines_on(name, meaning, period)
    return lines


def columns_of(record: SceneRecord) -> dict[str, Any]:
    """Returns the columns of a table row: evidences, odds, and the parts of every scene compared.

    Columns of scenes that are not the best are None; the plain columns of :data:`OF_THE_SUM` are
    included if the best scene has several parts.
    """
    row: dict[str, Any] = {
        "best_scene": record.best,
        "scene_odds": record.odds,
        "scene_ess": record.ess,
        "scene_khat": record.khat,
    }
    for scene in record.compared:
        values = (record.log_evidence, record.log_evidence_error, record.tempered)
        row |= dict(zip(_evidence_names(scene), (value[scene] for value in values), strict=True))
    for name in parameter_columns(record.compared):
        row |= dict.fromkeys(names_of(name))
    periods = {name: period for name, (_, _, period) in parameter_columns(SCENES).items()}
    for name, draws in record.draws.items():
        row |= columns_of_draws(
            name, draws, record.noise_draws[name], record.weights, periods.get(name)
        )
    return row


def _evidence_names(scene: str) -> tuple[str, str, str]:
    name = f"log_evidence_{key_of(scene)}"
    return name, f"{name}_error", f"{name}_tempered"


def part_columns(
    parts: Mapping[str, Float[Array, "s p"]],
) -> dict[str, Float[Array, " s"]]:
    """Returns the columns of parts by name: seven parameters for profiles, three for points."""
    columns = {}
    for part, values in parts.items():
        whole = values.shape[1] == NUM_PARAMETERS
        for i, name in enumerate(NAMES[:5] if whole else NAMES[:1]):
            columns[f"{part}_{name}"] = values[:, i]
    return columns
