"""Results for a galaxy in several bands, and their table columns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from jaxtyping import Float
from torch import Tensor

from deeplegato_pp.arrays import Array
from deeplegato_pp.flags import Flag
from deeplegato_pp.inference.fit.widening import Widening
from deeplegato_pp.inference.posterior.draw_columns import columns_of_draws, lines_on, names_of
from deeplegato_pp.scene.bands import STRUCTURE
from deeplegato_pp.scene.joint import JointLikelihood
from deeplegato_pp.scene.parameters import PARAMETERS

TEXTS = ("bands", "band_structure")

_MAGNITUDE = PARAMETERS[0]
_STRUCTURE = tuple(PARAMETERS[i] for i in STRUCTURE)


@dataclass(frozen=True, eq=False)
class BandRecord:
    """Results for one galaxy in several bands.

    Attributes:
        names: Names of the bands; the first is the frame.
        structure: Dependence of the structure on the band, one of
            :data:`~deeplegato_pp.scene.bands.STRUCTURES`.
        likelihood: Joint likelihood of all bands, with neighbours masked.
        u: Draws in joint coordinates under the stated noise, with shape (S, F).
        best: Draw of the highest posterior density, with shape (F,).
        draws: Draws of every band's columns and colours, in the user's units, each (S,).
        noise_draws: The same under the stated noise alone.
        weights: Weights of the draws, with sum 1, with shape (S,).
        flags: Sum of flags, by band.
        chi2: Chi-square per unmasked pixel at the best draw, by band.
        num_modes: Number of modes of the joint posterior.
        widening: Widening applied to the draws; None if they are those of the noise.
    """

    names: tuple[str, ...]
    structure: str
    likelihood: JointLikelihood
    u: Float[Tensor, "s f"]
    best: Float[Tensor, " f"]
    draws: Mapping[str, Float[Array, " s"]]
    noise_draws: Mapping[str, Float[Array, " s"]]
    weights: Float[Array, " s"]
    flags: tuple[int, ...]
    chi2: tuple[float, ...]
    num_modes: int
    widening: Widening | None


def colour_name(first: str, second: str) -> str:
    """Returns the column name of a colour, the first band's magnitude minus the second's.

    Example:
        >>> colour_name("g", "r")
        'g_minus_r'
    """
    return f"{first}_minus_{second}"


def band_columns(
    names: Sequence[str], values: Sequence[Float[Array, "s 7"]], structure: str
) -> dict[str, Float[Array, " s"]]:
    """Returns draws of the bands' columns, by name.

    These are the magnitudes, the colours of consecutive bands, and, unless the bands share it, the
    structure of each band.

    Args:
        names: Names of the bands.
        values: Parameters of each band, in the user's units.
        structure: Dependence of the structure on the band.
    """
    magnitude = {name: v[:, 0] for name, v in zip(names, values, strict=True)}
    found = {f"magnitude_{name}": m for name, m in magnitude.items()}
    for first, second in pairwise(names):
        found[colour_name(first, second)] = magnitude[first] - magnitude[second]
    if structure != "shared":
        for name, v in zip(names, values, strict=True):
            found |= {f"{PARAMETERS[i].name}_{name}": v[:, i] for i in STRUCTURE}
    return found


def quantities(
    names: Sequence[str], structure: str = "free"
) -> dict[str, tuple[str, str, float | None]]:
    """Returns unit, meaning and period of every column that bands may have.

    Args:
        names: Names of the bands.
        structure: Dependence of the structure on the band; a shared one adds no columns.

    Example:
        >>> list(quantities(["g", "r"]))[:3]
        ['magnitude_g', 'magnitude_r', 'g_minus_r']
    """
    found: dict[str, tuple[str, str, float | None]] = {
        f"magnitude_{name}": ("mag", f"{_MAGNITUDE.meaning}, in {name}", None) for name in names
    }
    for first, second in pairwise(names):
        found[colour_name(first, second)] = (
            "mag",
            f"magnitude in {first} less that in {second}",
            None,
        )
    for name in names if structure != "shared" else ():
        for p in _STRUCTURE:
            found[f"{p.name}_{name}"] = (p.unit, f"{p.meaning}, in {name}", p.period)
    return found


def units(bands: Iterable[Sequence[str]], structure: str = "free") -> dict[str, str]:
    """Returns the unit of every column that sets of bands may add; "" for pure numbers.

    Args:
        bands: Names of the bands of each set.
        structure: Dependence of the structure on the band.
    """
    found = dict.fromkeys(TEXTS, "")
    for names in bands:
        for name, (unit, _, _) in quantities(names, structure).items():
            found |= dict.fromkeys(names_of(name), unit)
        found |= {f"{column}_{name}": "" for column in ("chi2", "flag_names") for name in names}
    return found


def descriptions(bands: Iterable[Sequence[str]]) -> dict[str, str]:
    """Returns a one-line description of each of these columns."""
    lines = {
        "bands": "bands fitted together; the plain columns are the first one's",
        "band_structure": "how R_e, n, q and position angle depend on the band",
    }
    for names in bands:
        for name, (_, meaning, period) in quantities(names).items():
            lines |= lines_on(name, meaning, period)
        for name in names:
            lines[f"chi2_{name}"] = f"chi-square per unmasked pixel of {name} at the best draw"
            lines[f"flag_names_{name}"] = f"names of the flags of {name}, separated by commas"
    return lines


def columns_of(record: BandRecord) -> dict[str, Any]:
    """Returns the columns of a table row."""
    known = quantities(record.names)
    row: dict[str, Any] = {"bands": ",".join(record.names), "band_structure": record.structure}
    for name, draws in record.draws.items():
        noise = record.noise_draws[name]
        row |= columns_of_draws(name, draws, noise, record.weights, known[name][2])
    for name, chi2, flags in zip(record.names, record.chi2, record.flags, strict=True):
        row |= {f"chi2_{name}": chi2, f"flag_names_{name}": ",".join(Flag.names(flags))}
    return row
