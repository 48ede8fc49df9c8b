"""From the options of ``predict`` and ``catalog`` to how galaxies are refined."""

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
    """Returns how galaxies are refined; None if they are not.

    Args:
        wanted: Whether galaxies are refined.
        method: ``exact`` or ``laplace``.
        rule: ``all`` or ``auto``.
        fix: Assignments ``NAME=VALUE``.
        star_odds: None where the option was not given, as with the one that follows.
        model_error: See :meth:`Predictor.refine`.
        widths: The same; the bare network heeds it too.
        scene: The same; None where the option was not given.

    Raises:
        ConfigError: If an assignment cannot be understood, or an option that only refining heeds
            is given and nothing is refined.
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
    """Returns the parameters to fix, from ``NAME=VALUE``.

    Raises:
        ConfigError: If a text is no assignment of a number, or a name is unknown.

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
