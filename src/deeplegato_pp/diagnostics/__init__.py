"""Calibration diagnostics of draws with known truth: ranks, coverage, TARP and sharpness.

Pure functions of draws (B, S, D), optional log-weights (B, S) and truths (B, D) for any number D of
parameters; no files, no plots. `periods` marks angular parameters. Each docstring states the errors
to which the diagnostic is blind. Galaxies are processed in blocks, which limits memory.
"""

from deeplegato_pp.diagnostics.coverage import (
    NOMINAL,
    CalibrationError,
    binomial_error,
    calibration_error,
    central_coverage,
    central_levels,
    expected_coverage,
    simultaneous_binomial_band,
)
from deeplegato_pp.diagnostics.density import (
    highest_density_coverage,
    highest_density_levels,
    marginal_density_levels,
)
from deeplegato_pp.diagnostics.ecdf import EcdfBand, ecdf, ecdf_band
from deeplegato_pp.diagnostics.intervals import (
    central_quantiles,
    equal_tailed_intervals,
    highest_density_intervals,
)
from deeplegato_pp.diagnostics.ranks import RankTest, rank_test, truth_ranks
from deeplegato_pp.diagnostics.rows import log_scaled
from deeplegato_pp.diagnostics.sharpness import (
    crps,
    errors,
    interval_score,
    mean_width,
    rmse,
)
from deeplegato_pp.diagnostics.tarp import tarp_coverage, tarp_levels

__all__ = [
    "NOMINAL",
    "CalibrationError",
    "EcdfBand",
    "RankTest",
    "binomial_error",
    "calibration_error",
    "central_coverage",
    "central_levels",
    "central_quantiles",
    "crps",
    "ecdf",
    "ecdf_band",
    "equal_tailed_intervals",
    "errors",
    "expected_coverage",
    "highest_density_coverage",
    "highest_density_intervals",
    "highest_density_levels",
    "interval_score",
    "log_scaled",
    "marginal_density_levels",
    "mean_width",
    "rank_test",
    "rmse",
    "simultaneous_binomial_band",
    "tarp_coverage",
    "tarp_levels",
    "truth_ranks",
]
