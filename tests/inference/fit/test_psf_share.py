"""All of a PSF's error is fitted where the PSF is wrong, little where there is structure."""

from dataclasses import replace

import pytest
import torch

from deeplegato_pp.inference.fit.fit import fit
from deeplegato_pp.inference.fit.psf_share import NEGLIGIBLE, WHOLE, fit_less, fitted_share
from deeplegato_pp.inference.fit.sandwich import sandwich_of
from deeplegato_pp.inference.fit.scores import block_scores
from deeplegato_pp.inference.fit.structure import blocks_at, mode_images, normalised, sandwich_at
from deeplegato_pp.scene.parameters import INDEX
from simulated_galaxies import BULGE, DISC, finder_near, observed


def optimum(likelihood, w=DISC):
    found = fit(likelihood, torch.tensor([0]), w[None])
    likelihood.freeze(found.rows, found.u)
    return found


def amplitude(likelihood, found) -> float:
    return float(likelihood.residual(0, found.image[0]).amplitudes.best[-1])


def test_all_of_a_wrong_psf_is_fitted():
    likelihood = observed([DISC], fwhm=3.15)
    found = optimum(likelihood)
    assert amplitude(likelihood, found) > NEGLIGIBLE
    assert fitted_share(likelihood, 0, found.u[0]) > WHOLE
    assert fit_less(likelihood, found) == []
    assert likelihood.psf_widths.share.tolist() == [1.0]


def test_structure_is_not_fitted():
    likelihood = observed([DISC, BULGE])
    found = optimum(likelihood)
    assert abs(amplitude(likelihood, found)) > 3.0
    assert fit_less(likelihood, found) == [0]
    assert float(likelihood.psf_widths.share) < 0.3
    known = observed([DISC, BULGE], psf_error=0.0)
    radius = INDEX["effective_radius"]
    apart = found.u[0, radius] - optimum(known).u[0, radius]
    held = optimum(likelihood).u[0, radius] - optimum(known).u[0, radius]
    assert abs(float(held)) < 0.3 * abs(float(apart))


def test_the_share_does_not_depend_on_the_share_in_force():
    likelihood = observed([DISC, BULGE])
    found = optimum(likelihood)
    first = fitted_share(likelihood, 0, found.u[0])
    likelihood.psf_widths.share[0] = first
    images, _ = normalised(likelihood, 0, mode_images(likelihood, 0, found.u[0]))
    assert float(images.amplitude_variance[0, 1]) == pytest.approx(first**-2)
    again = optimum(likelihood, found.u[0])
    assert fitted_share(likelihood, 0, again.u[0]) == pytest.approx(first, rel=0.3)


def test_known_psfs_and_small_errors_are_left_alone():
    known = observed([DISC, BULGE], psf_error=0.0)
    assert fitted_share(known, 0, optimum(known).u[0]) == 1.0
    smooth = observed([DISC])
    assert fitted_share(smooth, 0, optimum(smooth).u[0]) == 1.0


def test_honest_widths_hold_the_part_that_is_not_fitted():
    """The covariance gains what an amplitude of the whole error adds through the coordinates."""
    likelihood = observed([DISC])
    likelihood.psf_widths.share[0] = 0.1
    found = optimum(likelihood)
    blocks = blocks_at(likelihood, 0, found.u[0])
    images, _ = normalised(likelihood, 0, mode_images(likelihood, 0, found.u[0]))
    scores = block_scores(images, blocks)
    fitted_only = block_scores(replace(images, amplitude_variance=None), blocks)
    gained = sandwich_of(scores).covariance[0] - sandwich_of(fitted_only).covariance[0]
    # By how much one standard deviation of the fitted error moves the coordinates.
    precision = scores.fisher[0] + torch.eye(scores.fisher.shape[-1]).double()
    follow = torch.linalg.solve(precision[-2:, -2:], precision[-2:, :-2])[-1]
    moved = torch.linalg.solve(scores.marginal(precision[None])[0], follow)
    torch.testing.assert_close(gained, (0.1**-2 - 1.0) * torch.outer(moved, moved))


def test_the_search_goes_on_under_what_is_left():
    likelihood = observed([DISC, BULGE])

    def search(hold: bool):
        finder = finder_near(likelihood, DISC, mask_neighbours=False, hold_structure=hold)
        return finder, finder.find()

    (plain, (modes, _)), (held, (better, pilots)) = search(False), search(True)
    assert float(plain.likelihood.psf_widths.share) == 1.0
    assert float(held.likelihood.psf_widths.share) < 0.3
    assert float(likelihood.psf_widths.share) == 1.0
    # ln Z of the whole error is that of the search without holding.
    told = better[0].log_evidence() + float(held.evidence_loss[0])
    assert told == pytest.approx(modes[0].log_evidence(), abs=0.1)
    assert float(held.evidence_loss[0]) > 5.0
    again = held.likelihood.log_posterior(0, held.pilot_u[0])
    negligible = pilots[0] < better[0].log_posterior[0] - 25.0
    assert bool((((again - pilots[0]).abs() < 0.1) | negligible).all())
    assert sandwich_at(held.likelihood, 0, better[0].u[0]).judged.all()
