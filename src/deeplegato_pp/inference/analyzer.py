"""UncertaintyAnalyzer: calibration of error bars, given posteriors and true parameters."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from deeplegato_pp import diagnostics
from deeplegato_pp.arrays import Array
from deeplegato_pp.checks import check_choice
from deeplegato_pp.errors import InputError, RangeError, ShapeError
from deeplegato_pp.inference import predictive
from deeplegato_pp.inference.posterior.covariates import (
    class_edges,
    class_of,
    of_draws,
    of_posterior,
)
from deeplegato_pp.inference.posterior.posterior import Posterior
from deeplegato_pp.scene.parameters import NAMES, PARAMETERS
from deeplegato_pp.stats.circular import angular_difference

LEVELS: tuple[float, ...] = (0.5, 0.68, 0.9, 0.95)
"""Levels at which a report gives the coverage."""

LEVEL = 0.68
"""Level of the intervals whose width and score a report gives."""

KINDS = ("equal-tailed", "highest-density")


class UncertaintyAnalyzer:
    """Tests posteriors against true parameters: coverage, sharpness, goodness of fit, outliers.

    The truth may come from a simulation, or from a reference that is more accurate than the
    posterior. Galaxies that were not measured are excluded and counted.

    Args:
        results: A :class:`~deeplegato_pp.inference.Posterior` over many galaxies, or
            draws in physical units, with shape (B, S, 7).
        truth: True parameters, with shape (B, 7).
        log_weights: Log-weights of draws given as an array, with shape (B, S).
        covariates: Covariates by which galaxies are grouped, each with shape (B,), by name; they
            replace or extend the default ones: posterior medians of S/N, R_e/PSF, n and q, or of
            magnitude, R_e, n and q if only draws are given. They must be functions of the data, not
            of the truth: see :mod:`~deeplegato_pp.inference.posterior.covariates`.
        log_prob_truth: Log-density of the posterior at the truth, with shape (B,), for joint
            highest-density coverage; a Posterior already has that of its draws.

    Attributes:
        samples: Draws of the measured galaxies, with shape (N, S, 7).
        truth: Their true parameters, with shape (N, 7), or None.
        log_weights: Their log-weights, with shape (N, S), or None.
        covariates: Covariates by name, each with shape (N,).
        rows: Their indices in the input, with shape (N,).
        left_out: Number of galaxies that were not measured.

    Raises:
        InputError: If no galaxy was measured, or weights are given with a Posterior.
        ShapeError: If shapes do not agree.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> truth = rng.uniform(1.0, 2.0, (200, 7))
        >>> estimate = truth + 0.1 * rng.normal(size=truth.shape)
        >>> draws = estimate[:, None] + 0.1 * rng.normal(size=(200, 100, 7))
        >>> analyzer = UncertaintyAnalyzer(draws, truth)
        >>> analyzer.credible_intervals(0.95).shape
        (200, 7, 2)
        >>> analyzer.report()["galaxies"]
        200
    """

    def __init__(
        self,
        results: Posterior | Mapping[str, Any] | Float[Array, "b s 7"],
        truth: Float[Array, "b 7"] | None = None,
        *,
        log_weights: Float[Array, "b s"] | None = None,
        covariates: Mapping[str, Float[Array, "b"]] | None = None,
        log_prob_truth: Float[Array, "b"] | None = None,
    ) -> None:
        self._posterior: Posterior | None = None
        self._density: Array | None = None
        if isinstance(results, Mapping):
            results = results["posterior"]
        if isinstance(results, Posterior):
            if log_weights is not None:
                raise InputError("a Posterior has its own weights: give no log_weights beside it.")
            keep = np.array([m.measured for m in results.measurements])
        else:
            draws = np.asarray(results)
            if draws.ndim != 3 or draws.shape[2] != len(NAMES):
                raise ShapeError(f"draws must have shape (B, S, 7), got {draws.shape}.")
            keep = np.isfinite(draws).all(axis=tuple(range(1, draws.ndim)))
        known = None if truth is None else _truths(truth, len(keep))
        if not keep.any():
            raise InputError(
                f"none of {len(keep)} galaxies was measured: there is nothing to judge."
            )
        self.rows = np.flatnonzero(keep)
        self.left_out = int((~keep).sum())
        self.truth = None if known is None else known[keep]
        self._take(results, log_weights, keep)
        given = {name: np.asarray(v, dtype=np.float64) for name, v in (covariates or {}).items()}
        given |= {} if log_prob_truth is None else {"log_prob_truth": np.asarray(log_prob_truth)}
        for name, values in given.items():
            if values.shape != keep.shape:
                raise ShapeError(f"{name} must have shape {keep.shape}, got {values.shape}.")
        given = {name: values[keep] for name, values in given.items()}
        self._density_truth = given.pop("log_prob_truth", None)
        self.covariates = self._known_covariates() | given

    def _take(self, results: Any, log_weights: Array | None, keep: Array) -> None:
        if isinstance(results, Posterior):
            self._posterior = results[self.rows.tolist()]
            weights = self._posterior.batch_log_weights
            self.samples = self._posterior.batch_samples.numpy()
            self.log_weights = None if weights is None else weights.numpy()
            density = self._posterior.batch_log_prob.numpy()
            self._density = density if weights is None else density + self.log_weights
            return
        self.samples = np.asarray(results, dtype=np.float64)[keep]
        self.log_weights = None if log_weights is None else np.asarray(log_weights)[keep]

    def _known_covariates(self) -> dict[str, Array]:
        if self._posterior is None:
            return of_draws(self.samples, self.log_weights)
        return of_posterior(self._posterior)

    @property
    def _known_truth(self) -> Array:
        if self.truth is None:
            raise InputError(
                "calibration needs truths, and none were given. Give them: "
                "UncertaintyAnalyzer(results, truth)."
            )
        return self.truth

    # --- one entry per galaxy -----------------------------------------------------------------

    @cached_property
    def ranks(self) -> Float[Array, "n 7"]:
        """Posterior probability below the truth, (N, 7), see `diagnostics.truth_ranks`."""
        return diagnostics.truth_ranks(self.samples, self._known_truth, self.log_weights)

    @cached_property
    def joint_levels(self) -> dict[str, Float[Array, "n"]]:
        """Levels of the joint regions that contain the truth: ``tarp``, ``highest_density``."""
        truth, weights = self._known_truth, self.log_weights
        levels = {"tarp": diagnostics.tarp_levels(self.samples, truth, None, weights)}
        if self._density is not None and self._density_truth is not None:
            levels["highest_density"] = diagnostics.highest_density_levels(
                self._density, self._density_truth, self.log_weights
            )
        return levels

    @cached_property
    def _sharpness(self) -> dict[str, Float[Array, "n 7"]]:
        """Squared error, CRPS, interval score and width of each galaxy; R_e and n in ln."""
        draws, truth = map(diagnostics.log_scaled, (self.samples, self._known_truth))
        ends = diagnostics.equal_tailed_intervals(draws, LEVEL, self.log_weights)
        return {
            "squared_error": diagnostics.errors(draws, truth, self.log_weights) ** 2,
            "crps": diagnostics.crps(draws, truth, self.log_weights),
            "interval_score": diagnostics.interval_score(draws, truth, LEVEL, self.log_weights),
            "width": ends[..., 1] - ends[..., 0],
        }

    def credible_intervals(
        self, level: float = LEVEL, kind: str = "equal-tailed"
    ) -> Float[Array, "n 7 2"]:
        """Returns credible intervals in physical units.

        Args:
            level: Probability of the intervals.
            kind: ``"equal-tailed"``, or ``"highest-density"`` (the shortest interval, for an angle
                the shortest arc).

        Returns:
            Lower and upper ends, with shape (N, 7, 2); those of an angle are not wrapped, so that
            the lower end is below the upper end.

        Raises:
            InputError: If the kind is unknown.
            RangeError: If the level is not a probability.
        """
        check_choice(kind, KINDS, "kind")
        if kind == "equal-tailed":
            return diagnostics.equal_tailed_intervals(self.samples, level, self.log_weights)
        return diagnostics.highest_density_intervals(self.samples, level, self.log_weights)

    @cached_property
    def pulls(self) -> Float[Array, "n 7"]:
        """Posterior median minus truth, divided by the 68 % half-width towards the truth, (N, 7).

        Robust against tails, and suitable for skewed posteriors; angles lie within half a turn.
        """
        truth = self._known_truth
        probabilities = (0.5 - 0.5 * LEVEL, 0.5, 0.5 + 0.5 * LEVEL)
        lower, median, upper = np.moveaxis(
            diagnostics.central_quantiles(self.samples, probabilities, self.log_weights), -1, 0
        )
        off = median - truth
        for j, p in enumerate(PARAMETERS):
            if p.period is not None:
                off[:, j] = angular_difference(off[:, j], p.period)
        width = np.where(off > 0, median - lower, upper - median)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(off == 0, 0.0, off / width)

    def outliers(self, sigma: float = 5.0) -> list[dict[str, Any]]:
        """Returns the galaxies whose truth deviates by more than `sigma` widths, worst first.

        Without truths, returns galaxies whose image is not explained by the model (``chi2_p``) or
        unlike the training images (``ood_p``), at the equivalent probability.

        Args:
            sigma: Limit of the absolute pull; without truths, of the equivalent normal deviate.

        Returns:
            One dictionary per galaxy and parameter: ``row`` (index in the input), ``name``,
            ``parameter``, ``pull``, ``truth``, and ``lower``, ``median``, ``upper`` of the 68 %
            interval. Without truths, one per galaxy and reason: ``row``, ``name``, ``reason``
            (``chi2_p`` or ``ood_p``) and ``p_value``.

        Raises:
            RangeError: If the limit is not positive.
            InputError: If there are neither truths nor images.
        """
        if not sigma > 0:
            raise RangeError(f"sigma must be positive, got {sigma!r}.")
        if self.truth is None:
            return self._unexplained(math.erfc(sigma / math.sqrt(2.0)))
        found = np.argwhere(np.abs(self.pulls) > sigma)
        found = found[np.argsort(-np.abs(self.pulls[tuple(found.T)]), kind="stable")]
        if not len(found):
            return []
        picked = np.unique(found[:, 0])
        weights = None if self.log_weights is None else self.log_weights[picked]
        quantiles = diagnostics.central_quantiles(self.samples[picked], (0.16, 0.5, 0.84), weights)
        place = {int(row): i for i, row in enumerate(picked)}
        return [self._outlier(int(i), int(j), quantiles[place[int(i)], int(j)]) for i, j in found]

    def _unexplained(self, limit: float) -> list[dict[str, Any]]:
        """Returns galaxies with a p-value below a limit, the smallest first."""
        if self._posterior is None:
            raise InputError(
                "outliers are told by truths, or by images. Give truths, or the Posterior in "
                "place of its draws."
            )
        found = [
            {"row": int(row), "name": m.name, "reason": reason, "p_value": _number(p)}
            for row, m in zip(self.rows, self._posterior.measurements, strict=True)
            for reason, p in (("chi2_p", m.chi2_p), ("ood_p", m.ood_p))
            if p < limit
        ]
        return sorted(found, key=lambda one: one["p_value"])

    def _outlier(self, i: int, j: int, quantiles: Array) -> dict[str, Any]:
        name = "" if self._posterior is None else self._posterior.measurements[i].name
        return {
            "row": int(self.rows[i]),
            "name": name,
            "parameter": NAMES[j],
            "pull": _number(self.pulls[i, j]),
            "truth": _number(self._known_truth[i, j]),
            **dict(zip(("lower", "median", "upper"), map(_number, quantiles), strict=True)),
        }

    def predictive_check(self, draws: int = 20, seed: int = 0) -> predictive.PredictiveCheck:
        """Compares each image with images predicted by its posterior, by chi-square.

        Args:
            draws: Posterior draws rendered per galaxy.
            seed: Random seed of their choice.

        Raises:
            InputError: If the analyzer has draws only, without images.
            RangeError: If the number of draws is not positive.
        """
        if self._posterior is None:
            raise InputError(
                "a posterior-predictive check needs the images. Give the Posterior, not its draws."
            )
        return predictive.check(self._posterior, draws, seed)

    # --- all galaxies, or a class -------------------------------------------------------------

    def metrics(self, chosen: Bool[Array, "n"] | None = None) -> dict[str, Any]:
        """Computes calibration and sharpness of all galaxies, or of some.

        Args:
            chosen: Mask of the galaxies, with shape (N,).

        Returns:
            ``galaxies``; ``parameters``: for each parameter ``coverage`` (by level),
            ``calibration_error`` (mean and largest over levels), ``rank_p_value``, ``rmse``,
            ``crps``, ``interval_score``, ``width`` (R_e and n in natural logarithms), ``bias``
            (median pull) and ``pull_width`` (robust standard deviation of the pulls); ``joint``:
            coverage, calibration error and p-value by region; ``chance``: the figures expected from
            a perfect posterior with as many galaxies.

        Raises:
            InputError: If no galaxy is selected.
        """
        pick = np.full(len(self.rows), True) if chosen is None else np.asarray(chosen)
        if not pick.any():
            raise InputError("no galaxy is chosen: there is nothing to measure.")
        levels = diagnostics.central_levels(self.ranks[pick])
        error = diagnostics.calibration_error(levels)
        parameters = self._by_parameter(pick, levels, error)
        joint = {name: _joint(values[pick]) for name, values in self.joint_levels.items()}
        number = int(pick.sum())
        chance = {
            "coverage_error": {str(p): diagnostics.binomial_error(p, number) for p in LEVELS},
            "calibration_error_mean": error.expected,
            "calibration_error_limit": error.limit,
            "calibration_error_largest_limit": error.largest_limit,
        }
        return {"galaxies": number, "parameters": parameters, "joint": joint, "chance": chance}

    def _by_parameter(
        self, pick: Array, levels: Array, error: diagnostics.CalibrationError
    ) -> dict[str, Any]:
        test = diagnostics.rank_test(self.ranks[pick])
        coverage = diagnostics.expected_coverage(levels, LEVELS)
        low, bias, high = np.quantile(self.pulls[pick], (0.16, 0.5, 0.84), axis=0)
        sharpness = {name: values[pick].mean(axis=0) for name, values in self._sharpness.items()}
        columns = {
            "calibration_error": error.mean,
            "calibration_error_largest": error.largest,
            "rank_statistic": test.statistic,
            "rank_p_value": test.p_value,
            "rmse": np.sqrt(sharpness.pop("squared_error")),
            **sharpness,
            "bias": bias,
            "pull_width": 0.5 * (high - low),
        }
        return {
            name: {
                "coverage": {str(p): _number(coverage[i, j]) for i, p in enumerate(LEVELS)},
                **{key: _number(values[j]) for key, values in columns.items()},
            }
            for j, name in enumerate(NAMES)
        }

    def by_class(
        self, covariate: str, edges: tuple[float, ...] | None = None
    ) -> list[dict[str, Any]]:
        """Returns the metrics of each non-empty class of a covariate.

        Args:
            covariate: One of `covariates`.
            edges: Edges of the classes, ascending; if None, fixed classes for S/N, else deciles.

        Returns:
            The dictionaries of `metrics`, each with ``lower`` and ``upper`` (None: no bound).

        Raises:
            InputError: If the covariate is unknown.
        """
        check_choice(covariate, tuple(self.covariates), "covariate")
        values = self.covariates[covariate]
        edges = class_edges(covariate, values) if edges is None else edges
        number = class_of(values, edges)
        found = []
        for i, (lower, upper) in enumerate(itertools.pairwise(edges)):
            inside = number == i
            if inside.any():
                bounds = {"lower": _number(lower), "upper": _number(upper)}
                found.append(bounds | self.metrics(inside))
        return found

    def report(self, sigma: float = 5.0, predictive_draws: int = 0) -> dict[str, Any]:
        """Returns all results as plain dictionaries for strict JSON.

        Args:
            sigma: Limit of outliers.
            predictive_draws: Draws rendered per galaxy for the predictive check; 0 for no check.

        Returns:
            ``galaxies``, ``left_out``, ``draws``; ``widths`` (of the 68 % interval, median over
            galaxies by parameter); with truths ``all`` (see `metrics`) and ``classes`` (by
            covariate, see `by_class`); ``outliers`` (limit, number, and the worst hundred) if there
            are truths or images; and ``predictive`` if requested.
        """
        ends = self.credible_intervals()
        widths = np.median(ends[..., 1] - ends[..., 0], axis=0)
        report: dict[str, Any] = {
            "galaxies": len(self.rows),
            "left_out": self.left_out,
            "draws": self.samples.shape[1],
            "widths": dict(zip(NAMES, map(_number, widths), strict=True)),
        }
        if self.truth is not None:
            report["all"] = self.metrics()
            report["classes"] = {name: self.by_class(name) for name in self.covariates}
        if self.truth is not None or self._posterior is not None:
            outliers = self.outliers(sigma)
            report["outliers"] = {
                "sigma": sigma,
                "number": len(outliers),
                "worst": outliers[:100],
            }
        if predictive_draws:
            report["predictive"] = self.predictive_check(predictive_draws).summary()
        return report


def _truths(truth: Any, galaxies: int) -> Array:
    """Returns truths as an array with one row per galaxy."""
    found = np.asarray(truth, dtype=np.float64)
    found = found[None] if galaxies == 1 and found.ndim == 1 else found
    if found.shape != (galaxies, len(NAMES)):
        raise ShapeError(f"truth must have shape ({galaxies}, 7), got {found.shape}.")
    return found


def _joint(levels: Float[Array, "n"]) -> dict[str, Any]:
    error, test = diagnostics.calibration_error(levels), diagnostics.rank_test(levels)
    coverage = diagnostics.expected_coverage(levels, LEVELS)
    return {
        "coverage": {str(p): _number(c) for p, c in zip(LEVELS, coverage, strict=True)},
        "calibration_error": _number(error.mean),
        "calibration_error_largest": _number(error.largest),
        "p_value": _number(test.p_value),
    }


def _number(value: Any) -> float | None:
    """Returns a float; None for values that JSON cannot hold."""
    number = float(value)
    return number if math.isfinite(number) else None
