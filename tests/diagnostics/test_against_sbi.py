"""Agreement with the implementations of sbi, on the same unweighted draws and references."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from deeplegato_pp.diagnostics import tarp_levels, truth_ranks
from toy_posteriors import toy

pytestmark = pytest.mark.slow  # importing sbi alone takes ten seconds

STRAIGHT = [0, 1, 2, 3, 5, 6]
"""The parameters without a circle, of which sbi knows nothing."""


@pytest.fixture(scope="module")
def sbi_diagnostics():
    """sbi's modules; some of what it imports changes torch's globals or warns."""
    import warnings

    from conftest import restore_torch_globals, torch_globals

    before = torch_globals()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("sbi", reason="sbi is not installed (extra: compare)")
        from sbi.diagnostics import sbc, tarp
    restore_torch_globals(before)
    return sbc, tarp


def test_the_coverage_of_tarp_is_that_of_sbi(sbi_diagnostics):
    _, tarp = sbi_diagnostics
    case = toy(500, 64, width=1.2, angle=0.5)
    samples, truth = case.samples.copy(), case.truth.copy()
    samples[..., 4], truth[:, 4] = (samples[..., 4] - truth[:, None, 4] + 90.0) % 180.0, 90.0
    references = truth + np.random.default_rng(0).normal(size=truth.shape)
    low, high = truth.min(0) - 1.0, truth.max(0) + 1.0
    given = [
        torch.from_numpy(a / (high - low)) for a in (samples.swapaxes(0, 1), truth, references)
    ]
    theirs, alpha = tarp._run_tarp(*given, num_bins=20)
    levels = tarp_levels(samples, truth, references, scale=high - low, spread=False)
    counts, edges = np.histogram(levels.astype(np.float32), bins=20)
    np.testing.assert_allclose(edges, alpha.numpy(), atol=1e-6)
    np.testing.assert_allclose(np.cumsum(counts) / 500, theirs[1:].numpy(), atol=1e-6)


def test_ranks_are_those_of_sbi(sbi_diagnostics):
    sbc, _ = sbi_diagnostics
    case = toy(60, 64)
    samples = torch.from_numpy(case.samples).swapaxes(0, 1)
    theirs = sbc._run_sbc(
        torch.from_numpy(case.truth), torch.zeros(60, 1), samples, show_progress_bar=False
    )
    ours = truth_ranks(case.samples, case.truth, spread=False) * 64
    np.testing.assert_allclose(ours[:, STRAIGHT], theirs.numpy()[:, STRAIGHT], atol=1e-6)
