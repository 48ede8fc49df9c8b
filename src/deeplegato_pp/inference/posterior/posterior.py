"""Posterior of the seven parameters, as weighted draws for one galaxy or many."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from deeplegato_pp.inference.posterior import residuals, summary
from deeplegato_pp.inference.posterior.base import PosteriorBase
from deeplegato_pp.inference.posterior.measurement import Measurement as Measurement
from deeplegato_pp.inference.posterior.reweight import Prior, reweight_posterior


@dataclass(frozen=True, eq=False)
class Posterior(PosteriorBase):
    """Posterior draws of one galaxy or of many, with summaries, reweighting and residuals.

    Attributes, arguments and errors are those of
    :class:`~deeplegato_pp.inference.posterior.base.PosteriorBase`.
    """

    def reweight(
        self,
        prior: Prior | None = None,
        *,
        noise_factor: float = 1.0,
        gain: float | None = None,
        ess: float = 100.0,
    ) -> Posterior:
        """Reweights exactly refined galaxies to another prior, noise or gain.

        For arguments and errors see
        :func:`~deeplegato_pp.inference.posterior.reweight.reweight_posterior`. Flags are set if the
        draws do not support the change.
        """
        return reweight_posterior(self, prior, noise_factor=noise_factor, gain=gain, ess=ess)

    def residual_image(self) -> residuals.Residuals:
        """Returns data, model, residual and masks of one galaxy, in the image's own units.

        Raises:
            InputError: If the posterior is of several galaxies, or the galaxy was not measured.
        """
        return residuals.residual_image(self)

    def rows(self) -> list[dict[str, Any]]:
        """Returns one plain dictionary per galaxy for strict JSON (None for unknown values)."""
        return summary.rows(self)

    def summary(self) -> Any:
        """Returns an ``astropy.table.QTable`` with units, one row per galaxy.

        For each parameter ``p``: the mean ``p``, ``p_std`` and the quantiles ``p_q025``, ``p_q16``,
        ``p_q50``, ``p_q84``, ``p_q975``; then derived quantities with their ``_std``, flags,
        method, quality figures and the prior box. Unknown numbers are NaN.
        """
        return summary.to_qtable(self.rows())

    def __repr__(self) -> str:
        draws = self.batch_samples.shape[1]
        failed = sum(not m.measured for m in self.measurements)
        kinds = ", ".join(sorted({m.method for m in self.measurements if m.method})) or "nothing"
        text = f"Posterior({len(self)} galaxies x {draws} draws, {kinds}"
        return text + (f", {failed} failed)" if failed else ")")
