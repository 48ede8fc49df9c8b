"""Posterior of the seven parameters, as weighted draws for one galaxy or many."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from deeplegato_pp.inference.posterior import covariance, residuals, summary
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

    def covariance(self, *, noise: bool = False) -> Float[np.ndarray, "*b 7 7"]:
        """Returns the covariance of the parameters that the tables report, NaN if not measured.

        The diagonal contains the squares of the columns ``<p>_std`` (``<p>_std_noise`` with
        `noise`); the unit of an entry is the product of its two parameters' units. Deviations of
        the position angle are circular, within 90 degrees. If several components are fitted,
        entries between a parameter of their sum (magnitude, radius, centre) and one of the single
        profile (index, axis ratio, angle) are NaN.

        Args:
            noise: Whether to use the draws with the widths of the stated noise.

        Returns:
            Covariance with shape (B, 7, 7), or (7, 7) for a single galaxy, in the table's order.
        """
        found = [covariance.covariance_matrix(self, i, noise=noise) for i in range(len(self))]
        return found[0] if self.single else np.stack(found)

    def rows(self, covariances: bool = False) -> list[dict[str, Any]]:
        """Returns one dictionary per galaxy, with values of strict JSON (None if unknown).

        Args:
            covariances: Whether to add the covariances of all pairs of parameters, as columns
                ``cov_<p>_<q>`` and ``cov_<p>_<q>_noise``; see :meth:`covariance`.
        """
        return summary.rows(self, covariances)

    def summary(self, covariances: bool = False) -> Any:
        """Returns an ``astropy.table.QTable`` with units, one row per galaxy.

        For each parameter ``p``: the mean ``p``, ``p_std`` and the quantiles ``p_q025``, ``p_q16``,
        ``p_q50``, ``p_q84``, ``p_q975``; then derived quantities with their ``_std``, flags,
        method, quality figures and the prior box. Unknown numbers are NaN.

        Args:
            covariances: See :meth:`rows`.
        """
        return summary.to_qtable(self.rows(covariances))

    def __repr__(self) -> str:
        draws = self.batch_samples.shape[1]
        failed = sum(not m.measured for m in self.measurements)
        kinds = ", ".join(sorted({m.method for m in self.measurements if m.method})) or "nothing"
        text = f"Posterior({len(self)} galaxies x {draws} draws, {kinds}"
        return text + (f", {failed} failed)" if failed else ")")
