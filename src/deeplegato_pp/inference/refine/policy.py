"""Selection of the galaxies to refine, and settings of the refinement, for lists of galaxies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deeplegato_pp.checks import check_choice, check_model_error
from deeplegato_pp.inference.fit.widening import WIDTHS
from deeplegato_pp.inference.posterior.measurement import Measured
from deeplegato_pp.inference.posterior.neighbours import Neighbours
from deeplegato_pp.inference.posterior.posterior import Posterior
from deeplegato_pp.inference.refine.evidence import check_odds
from deeplegato_pp.inference.refine.rows import unrefined
from deeplegato_pp.inference.refine.scenes import check_scene
from deeplegato_pp.isolation import isolated
from deeplegato_pp.scene import units
from deeplegato_pp.scene.components import SersicCoordinates
from deeplegato_pp.scene.noise import MODEL_ERROR
from deeplegato_pp.scene.prior import PriorBox

if TYPE_CHECKING:
    from deeplegato_pp.inference.posterior.estimator import Estimator

FAINT = 10.0
"""S/N below which the network's posterior is nearly as good as the exact one."""

MISFIT = 5.0
"""Excess of the mean's chi-square, in standard deviations, above which a galaxy is refined."""


_INSTRUMENT_FREE = ("sersic_index", "axis_ratio", "position_angle")
"""Parameters with the same bounds in all units."""


@dataclass(frozen=True)
class Refining:
    """Settings that select and refine the galaxies of a list.

    Attributes:
        method: ``"exact"`` or ``"laplace"``.
        rule: ``"all"``, or ``"auto"`` for those that benefit (:func:`worth_refining`).
        fixed: Values of fixed parameters, the same for all galaxies, in the user's units.
        star_odds: Prior odds of a point source against a galaxy.
        model_error: Model error as a fraction of the model image.
        widths: ``"honest"`` or ``"noise"``.
        scene: See :meth:`Predictor.refine`.

    Raises:
        ConfigError: If the scene is unknown or incompatible with the other settings.
        InputError: If the rule or the kind of widths is unknown.
        RangeError: If the model's error lies outside [0, 1], or the odds are not positive.
    """

    method: str = "exact"
    rule: str = "all"
    fixed: Mapping[str, float] | None = None
    star_odds: float | None = 1.0
    model_error: float = MODEL_ERROR
    widths: str = "honest"
    scene: str = "sersic"

    def __post_init__(self) -> None:
        check_choice(self.rule, ("all", "auto"), "refine_rule")
        check_choice(self.widths, WIDTHS, "widths")
        check_model_error(self.model_error)
        if self.star_odds is not None:
            check_odds(self.star_odds)
        check_scene(self.scene, bool(self.fixed))

    def check(self, prior: PriorBox) -> None:
        """Raises an error for fixed values that are invalid for every instrument.

        Args:
            prior: The network's prior box.

        Raises:
            RangeError: If shape parameters lie outside the prior, or cannot be fixed alone.
        """
        shared = {k: v for k, v in (self.fixed or {}).items() if k in _INSTRUMENT_FREE}
        SersicCoordinates(prior, shared)

    def apply(
        self,
        predictor: Estimator,
        posterior: Posterior,
        seed: int | Sequence[int],
        neighbours: Sequence[Neighbours | None] | None = None,
    ) -> Posterior:
        """Returns the posterior with the chosen galaxies refined, in the same order.

        Args:
            predictor: Estimator that made the draws.
            posterior: The network's posterior.
            seed: Random seed; a sequence holds one per galaxy.
            neighbours: See :meth:`Predictor.refine`.
        """
        number = len(posterior)
        chosen = list(range(number)) if self.rule == "all" else worth_refining(posterior)
        if not chosen:
            return posterior

        def refine(rows: Sequence[int]) -> list[Posterior]:
            refined = predictor.refine(
                posterior[list(rows)],
                self.method,
                fixed=self.fixed,
                seed=seed if isinstance(seed, int) else [seed[i] for i in rows],
                star_odds=self.star_odds,
                model_error=self.model_error,
                widths=self.widths,
                scene=self.scene,
                neighbours=None if neighbours is None else [neighbours[i] for i in rows],
            )
            return [refined[[i]] for i in range(len(refined))]

        refined = Posterior.concatenate(
            isolated(chosen, refine, lambda i, error: unrefined(posterior[[i]], error))
        )
        rest = sorted(set(range(number)) - set(chosen))
        if not rest:
            return refined
        joined = Posterior.concatenate([refined, posterior[rest]])
        order = [*chosen, *rest]
        return joined[[order.index(i) for i in range(number)]]


def worth_refining(posterior: Posterior) -> list[int]:
    """Returns the galaxies selected by the rule ``auto``, for which refinement changes much.

    These are galaxies with a median S/N above 10, for which the network's posterior is far wider
    than the exact one, and those whose mean does not fit the image (chi-square more than 5 sigma
    too large).
    """
    rows = []
    for i, m in enumerate(posterior.measurements):
        if not isinstance(m, Measured):
            continue
        pixels = int((~m.prepared.mask).sum())
        if (
            m.chi2 - 1.0 > MISFIT * (2.0 / pixels) ** 0.5
            or units.median_snr(posterior.batch_samples[i], m.prepared, m.psf_fwhm) > FAINT
        ):
            rows.append(i)
    return rows
