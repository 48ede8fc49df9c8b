"""Attributes of posteriors with one entry per galaxy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from deeplegato_pp.arrays import Array
from deeplegato_pp.flags import Flag
from deeplegato_pp.inference.posterior.measurement import Measurement
from deeplegato_pp.observation.observation import Observation
from deeplegato_pp.observation.preparation import PreparedStamp
from deeplegato_pp.scene.prior import PriorBox


class GalaxyAttributes:
    """Attributes of the measurement records as lists or arrays.

    For a single galaxy (`single`), each attribute is that galaxy's entry.

    Attributes:
        measurements: Measurement records, one per galaxy.
        single: Whether this is one galaxy.
    """

    measurements: Sequence[Measurement]
    single: bool

    def _each(self, attribute: str) -> Any:
        values = [getattr(m, attribute) for m in self.measurements]
        return values[0] if self.single else values

    def _number(self, attribute: str) -> float | Array:
        values = self._each(attribute)
        return float(values) if self.single else np.array(values, dtype=np.float64)

    @property
    def names(self) -> str | list[str]:
        """Names of the galaxies."""
        return self._each("name")

    @property
    def flags(self) -> int | list[int]:
        """Sums of flags."""
        return self._each("flags")

    @property
    def flag_names(self) -> list[str] | list[list[str]]:
        """Names of the flags that are set."""
        names = [Flag.names(m.flags) for m in self.measurements]
        return names[0] if self.single else names

    @property
    def reasons(self) -> str | list[str]:
        """Reasons why galaxies were not measured; empty for measured ones."""
        return self._each("reason")

    @property
    def method(self) -> str | list[str]:
        """Methods by which the draws were obtained, see :class:`Measurement`."""
        return self._each("method")

    @property
    def ess(self) -> float | Array:
        """Effective sample sizes; NaN without weights."""
        return self._number("ess")

    @property
    def khat(self) -> float | Array:
        """Pareto k-hat of the weights; NaN without weights."""
        return self._number("khat")

    @property
    def log_evidence(self) -> float | Array:
        """Logarithms of the evidence; NaN if not computed."""
        return self._number("log_evidence")

    @property
    def log_evidence_error(self) -> float | Array:
        """Standard errors of the log-evidence."""
        return self._number("log_evidence_error")

    @property
    def chi2(self) -> float | Array:
        """Chi-square per degree of freedom: at the mean, or once refined at the best draw."""
        return self._number("chi2")

    @property
    def quality(self) -> str | list[str]:
        """Quality levels ``good``, ``caution`` or ``bad``, by the flags (see ``docs/flags.md``)."""
        return self._each("quality")

    @property
    def chi2_p(self) -> float | Array:
        """Probabilities of a misfit as large as the best model's; see :class:`Measurement`."""
        return self._number("chi2_p")

    @property
    def ood(self) -> float | Array:
        """Distances of the network's features from those of training images."""
        return self._number("ood")

    @property
    def ood_p(self) -> float | Array:
        """Fractions of training images with larger distances."""
        return self._number("ood_p")

    @property
    def p_value(self) -> float | Array:
        """Probabilities of a larger chi-square under the exact posterior; NaN if not refined."""
        return self._number("p_value")

    @property
    def num_modes(self) -> float | Array:
        """Numbers of modes found by refinement; NaN if not refined."""
        return self._number("num_modes")

    @property
    def structure(self) -> float | Array:
        """Median ratios of honest to noise widths; NaN if not computed."""
        return self._number("structure")

    @property
    def widths(self) -> str | list[str]:
        """Kinds of widths, ``honest`` or ``noise``; see :class:`Measurement`."""
        return self._each("widths")

    @property
    def star_probability(self) -> float | Array:
        """Probabilities of a point source rather than a galaxy; NaN if not computed."""
        values = [
            math.nan if m.hypotheses is None else float(m.hypotheses.star_probability)
            for m in self.measurements
        ]
        return values[0] if self.single else np.array(values, dtype=np.float64)

    @property
    def observations(self) -> Observation | list[Observation | None] | None:
        """The observations."""
        return self._each("observation")

    @property
    def prepared(self) -> PreparedStamp | list[PreparedStamp | None] | None:
        """The prepared stamps."""
        return self._each("prepared")

    @property
    def boxes(self) -> PriorBox | list[PriorBox | None] | None:
        """The prior boxes, in the user's units."""
        return self._each("box")
