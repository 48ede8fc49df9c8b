"""Results of refinement: weighted draws of many galaxies, with diagnostics of each."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from deeplegato_pp.errors import ShapeError
from deeplegato_pp.flags import Flag
from deeplegato_pp.inference.fit.widening import Widening
from deeplegato_pp.inference.sampling.importance import effective_sample_size
from deeplegato_pp.scene.likelihood import Likelihood
from deeplegato_pp.scene.parameters import NUM_PARAMETERS
from deeplegato_pp.stats.pareto import pareto_khat, reliable

_PREDICTIVE = 4
"""Number of draws over which p-values are averaged."""


@dataclass
class RefinedGalaxy:
    """Draws and diagnostics of one galaxy.

    Attributes:
        w: Coordinates of the draws, including fixed parameters, with shape (S, 7).
        log_proposal: Log-density, in the free coordinates, of the mixture that generated the draws,
            with shape (S,). Of a Markov chain it is the target's, so that weights are equal.
        log_likelihood: ln L at the draws, with shape (S,).
        log_weights: Unnormalised log weights, with shape (S,).
        method: ``importance`` (proposals made before any weight was seen), ``adapted`` (refitted to
            the weights), ``mcmc`` or ``laplace``.
        log_evidence: ln Z, from draws made after the last adaptation.
        log_evidence_error: Standard error of ln Z.
        peak: Largest ln L found. Like ln Z, it is that of the PSF's whole error.
        ess: Effective sample size.
        khat: Pareto k-hat; NaN without weights.
        efficiency: Effective sample size divided by the number of draws.
        num_modes: Number of modes found by the search.
        num_renders: Number of images rendered, including those of the search.
        chi2: Chi-square per degree of freedom (unmasked pixels minus free parameters) at the best
            draw, with the sky offset marginalised.
        p_value: Posterior predictive p-value: the probability that an image simulated from a draw
            has a larger chi-square than the observed one, averaged over draws (analytic).
        masked_pixels: Number of pixels masked as neighbours.
        neighbours: Pixels masked as neighbours, with shape (N, N); None before the check.
        flags: Sum of flags.
        chain: Convergence diagnostics of the Markov chain, if one was run.
        star_log_odds: Lower bound on ln odds of a point source against the galaxy, if they are so
            large that no chain was run; NaN otherwise.
        widening: Map of the draws to honest widths; None if not requested.
    """

    w: Float[Tensor, "s 7"]
    log_proposal: Float[Tensor, " s"]
    log_likelihood: Float[Tensor, " s"]
    log_weights: Float[Tensor, " s"]
    method: str
    log_evidence: float = math.nan
    log_evidence_error: float = math.nan
    peak: float = math.nan
    ess: float = math.nan
    khat: float = math.nan
    efficiency: float = math.nan
    num_modes: int = 0
    num_renders: int = 0
    chi2: float = math.nan
    p_value: float = math.nan
    masked_pixels: int = 0
    neighbours: Bool[Tensor, "n n"] | None = None
    flags: int = 0
    chain: dict[str, float] = field(default_factory=dict)
    star_log_odds: float = math.nan
    widening: Widening | None = None

    def judge(self, ess_wanted: float) -> None:
        """Computes effective size, k-hat, efficiency and the flags that follow from them."""
        self.ess = float(effective_sample_size(self.log_weights))
        self.khat = pareto_khat(self.log_weights)
        self.efficiency = self.ess / max(len(self.log_weights), 1)
        if self.ess < ess_wanted:
            self.flags |= int(Flag.LOW_ESS)
        if not reliable(self.log_weights):
            self.flags |= int(Flag.HIGH_KHAT)

    @property
    def best(self) -> Float[Tensor, "7"]:
        """Draw of the highest posterior density in w, with shape (7,)."""
        return self.w[(self.log_weights + self.log_proposal).argmax()]

    def judge_fit(self, likelihood: Likelihood, row: int, generator: torch.Generator) -> int:
        """Computes the best draw's ln L and chi-square, and the posterior predictive p-value.

        Args:
            likelihood: Likelihood of the galaxies, under the noise in force.
            row: Index of the galaxy.
            generator: Random generator for the choice of draws.

        Returns:
            Number of images rendered.
        """
        draws = torch.cat([self.best[None], self.resample(_PREDICTIVE, generator)])
        found = likelihood.residual_row(row, likelihood.coordinates.project(draws))
        self.peak = float(found.log_likelihood[0])
        self.chi2 = float(likelihood.reduced_chi2(row, found.chi2[0]))
        self.p_value = float(found.p_value[1:].mean())
        return len(draws)

    def note_masked(self, neighbours: Bool[Tensor, "n n"]) -> None:
        """Stores the pixels that were masked as neighbours, with shape (N, N)."""
        self.neighbours = neighbours.cpu()
        self.masked_pixels = int(neighbours.sum())
        if self.masked_pixels:
            self.flags |= int(Flag.NEIGHBOURS_MASKED)

    def mean(self) -> Float[Tensor, "7"]:
        """Returns the weighted mean in w."""
        return torch.softmax(self.log_weights, 0) @ self.w

    def std(self) -> Float[Tensor, "7"]:
        """Returns the weighted standard deviation in w."""
        weights = torch.softmax(self.log_weights, 0)
        return (weights @ (self.w - weights @ self.w) ** 2).sqrt()

    def resample(self, number: int, generator: torch.Generator) -> Float[Tensor, "n 7"]:
        """Returns equally weighted draws, by systematic resampling in a random order."""
        weights = torch.softmax(self.log_weights, 0)
        start = torch.rand(1, generator=generator, dtype=torch.float64)
        points = (torch.arange(number, dtype=torch.float64) + start) / number
        picked = torch.searchsorted(weights.cumsum(0), points).clamp(max=len(weights) - 1)
        return self.w[picked[torch.randperm(number, generator=generator)]]


class RefinedDraws:
    """Refined galaxies, with draws padded to the largest number by weights of -inf.

    Args:
        galaxies: One entry per galaxy.
        likelihood: Likelihood with neighbours masked, so that other hypotheses use the same pixels.

    Raises:
        ShapeError: If there are no galaxies.
    """

    def __init__(self, galaxies: list[RefinedGalaxy], likelihood: Likelihood) -> None:
        if not galaxies:
            raise ShapeError("RefinedDraws takes at least one galaxy, got none.")
        self.galaxies = galaxies
        self.likelihood = likelihood

    def __len__(self) -> int:
        return len(self.galaxies)

    def __getitem__(self, index: int) -> RefinedGalaxy:
        return self.galaxies[index]

    @property
    def w(self) -> Float[Tensor, "b s 7"]:
        """Coordinates of the draws; padding repeats the first draw."""
        longest = max(len(g.w) for g in self.galaxies)
        rows = [
            torch.cat([g.w, g.w[:1].expand(longest - len(g.w), NUM_PARAMETERS)])
            for g in self.galaxies
        ]
        return torch.stack(rows)

    @property
    def log_proposal(self) -> Float[Tensor, "b s"]:
        """Log-density of the proposal; padding repeats the first draw's."""
        longest = max(len(g.w) for g in self.galaxies)
        return torch.stack(
            [
                torch.cat([g.log_proposal, g.log_proposal[:1].expand(longest - len(g.w))])
                for g in self.galaxies
            ]
        )

    @property
    def log_weights(self) -> Float[Tensor, "b s"]:
        """Log weights, -inf in the padding."""
        return self._pad("log_weights", -math.inf)

    @property
    def log_likelihood(self) -> Float[Tensor, "b s"]:
        """Ln L, -inf in the padding."""
        return self._pad("log_likelihood", -math.inf)

    def _pad(self, name: str, value: float) -> Tensor:
        rows = [getattr(g, name) for g in self.galaxies]
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=value)

    @property
    def ess(self) -> Float[Tensor, " b"]:
        """Effective sample sizes."""
        return self._column("ess")

    @property
    def khat(self) -> Float[Tensor, " b"]:
        """Pareto k-hats."""
        return self._column("khat")

    @property
    def log_evidence(self) -> Float[Tensor, " b"]:
        """Log-evidences."""
        return self._column("log_evidence")

    @property
    def log_evidence_error(self) -> Float[Tensor, " b"]:
        """Standard errors of the log-evidences."""
        return self._column("log_evidence_error")

    @property
    def chi2(self) -> Float[Tensor, " b"]:
        """Chi-square per degree of freedom at the best draw."""
        return self._column("chi2")

    @property
    def method(self) -> list[str]:
        """Methods, one per galaxy."""
        return [g.method for g in self.galaxies]

    @property
    def flags(self) -> list[int]:
        """Sums of flags, one per galaxy."""
        return [g.flags for g in self.galaxies]

    def _column(self, name: str) -> Tensor:
        return torch.tensor([getattr(g, name) for g in self.galaxies], dtype=torch.float64)
