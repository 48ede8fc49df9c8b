"""Settings of the refinement from the options of ``predict`` and ``catalog``."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from deeplegato_pp.errors import ConfigError

if TYPE_CHECKING:
    from deeplegato_pp.inference.refine.policy import Refining


def refining_from(
    wanted: bool,
    method: str,
    rule: str,
    fix: list[str] | None,
    star_odds: float | None,
    model_error: float | None,
    widths: str,
    scene: str | None = None,
) -> Refining | None:
    """Returns the settings of the refinement; None without refinement.

    Args:
        wanted: Whether galaxies are refined.
        method: ``exact`` or ``laplace``.
        rule: ``all`` or ``auto``.
        fix: Assignments ``NAME=VALUE``.
        star_odds: See :meth:`Predictor.refine`; None if not given.
        model_error: See :meth:`Predictor.refine`; None if not given.
        widths: See :meth:`Predictor.refine`; also used without refinement.
        scene: See :meth:`Predictor.refine`; None if not given.

    Raises:
        ConfigError: If an assignment is invalid, or an option of the refinement is given without
            refinement.
    """
    named_options: dict[str, Any] = {
        "star_odds": star_odds,
        "model_error": model_error,
        "scene": scene,
    }
    given = {name: value for name, value in named_options.items() if value is not None}
    if not wanted:
        named = [*(["fix"] if fix else []), *given]
        if named:
            raise ConfigError(
                f"--{named[0].replace('_', '-')} belongs to the exact posterior; the bare network "
                "does not heed it. Refine, with --refine, or leave it out."
            )
        return None
    fixed = fixed_values(fix or [])
    from deeplegato_pp.inference.refine.policy import Refining

    return Refining(method, rule, fixed or None, widths=widths, **given)


def fixed_values(texts: list[str]) -> dict[str, float]:
    """Parses the parameters to fix, given as ``NAME=VALUE``.

    Raises:
        ConfigError: If a text is not an assignment of a number, or a name is unknown.

    Example:
        >>> fixed_values(["sersic_index=4"])
        {'sersic_index': 4.0}
    """
    from deeplegato_pp.scene.parameters import NAMES

    fixed = {}
    for text in texts:
        name, _, value = text.partition("=")
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if name not in NAMES or not math.isfinite(number):
            raise ConfigError(
                f"--fix {text}: expected NAME=VALUE with a finite number and one of "
                f"{', '.join(NAMES)}, e.g. --fix sersic_index=4."
            )
        fixed[name] = number
    return fixed
