"""The exact engine against long chains of an independent sampler on the same likelihood.

    python benchmarks/exact_chains.py -o runs/chains            # all 20, some minutes each
    python benchmarks/exact_chains.py -o runs/chains --only 3   # one of them

Twenty galaxies spread over S/N 5-1000, R_e 0.5-20 px and n 0.5-7, on stamps of 64 px, which the
network sees with masked pixels about them; --stand-in has a Gaussian in the network's place. The
chains are emcee's, 64 walkers with differential evolution, started from the Gauss-Newton covariance
about the truth (so not from the refined draws), likelihoods rendered and not interpolated, until
the effective size reaches 5,000 over 50 autocorrelation times. Refined with an effective size of
10,000. Compared: means in sigmas of the chain and ratios of standard deviations, of the parameters
(magnitude, ln R_e, ln n, shape, centre) and of the coordinates w, which stretch what lies next to
the prior's edge; and the accuracy of a classifier that is to tell 2,000 + 2,000 draws apart (C2ST,
five-fold; 0.5 is perfect), the refined ones picked by weight without repetition. Each galaxy is a
file in the folder and is not made again; the table is of all that are there, and ``chains.json``
holds it.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from pathlib import Path

import emcee
import numpy as np
import torch
from exact import Network, likelihood_of, stand_in
from torch import Tensor, nn

from deeplegato_pp.data.sersic_simulator import SersicSimulator
from deeplegato_pp.inference.fit.fit import fit
from deeplegato_pp.inference.posterior.draws import RefinedGalaxy
from deeplegato_pp.inference.refine.engine import refine_batch
from deeplegato_pp.inference.refine.options import RefineOptions
from deeplegato_pp.models.deeplegato_pp import DeepLeGAToPP
from deeplegato_pp.scene.likelihood import Likelihood
from deeplegato_pp.scene.parameters import INDEX
from deeplegato_pp.scene.prior import PriorBox
from deeplegato_pp.scene.stamps import StampBatch

GALAXIES = 20
WALKERS = 64
SEED = 2**43
CLASSIFIED = 2000


def chosen_scene(index: int, size: int) -> tuple[Likelihood, Tensor, float]:
    """Returns the likelihood, the truth in w and the S/N of galaxy `index` of the design.

    Radius, index and S/N run over their ranges on a Latin hypercube; the noise and the PSF are the
    simulator's, and the flux is the one that gives the S/N.
    """
    rng = np.random.default_rng(SEED)
    design = [(rng.permutation(GALAXIES) + rng.random(GALAXIES)) / GALAXIES for _ in range(3)]
    ranges = ((5.0, 1000.0), (0.5, 20.0), (0.5, 7.0))
    snr, radius, n = (
        low * (high / low) ** column[index]
        for column, (low, high) in zip(design, ranges, strict=True)
    )
    simulator = SersicSimulator(image_size=size)
    simulator.conditions = simulator.conditions.clean()
    generator = torch.Generator().manual_seed(SEED + index)
    box = PriorBox()
    w = torch.randn(1, 7, generator=generator, dtype=torch.float64)
    params = box.to_physical(w)
    params[0, INDEX["effective_radius"]] = 0.25 * radius
    params[0, INDEX["sersic_index"]] = n
    scene = simulator.sample_scene(1, generator)
    likelihood = likelihood_of(scene, box)
    area = radius**2 * float(params[0, INDEX["axis_ratio"]]) + 1.5**2
    flux = 2.0 * snr * math.sqrt(2.0 * math.pi * area)
    params[0, INDEX["magnitude"]] = 30.5 - 2.5 * math.log10(flux)
    truth = box.to_normal(params)
    observe(likelihood, truth, generator)
    return likelihood, truth, snr


def observe(likelihood: Likelihood, truth: Tensor, generator: torch.Generator) -> None:
    """Replaces the image by that of the truth, with Gaussian noise of its variance and a sky."""
    from deeplegato_pp.scene.noise import model_variance

    s = likelihood.stamps
    model = likelihood.render(0, truth, torch.float64)
    variance = model_variance(model, s.sigma, s.gain)
    options = {"generator": generator, "dtype": torch.float64}
    noise = variance.sqrt() * torch.randn(model.shape, **options)
    s.image[:] = model + noise + s.sky_sigma * torch.randn(1, **options)


def network_of(likelihood: Likelihood, draws: int, seed: int) -> Network:
    """Returns the packaged network's draws, their density and the density itself."""
    model = DeepLeGAToPP.from_pretrained()
    with torch.no_grad():
        context = model.encode(padded(likelihood.stamps, model.image_size))
        w, log_q = model.sample(context, draws, torch.tensor([seed]))
    return w, log_q, lambda rows, points: model.log_prob(context[rows], points)


def padded(stamps: StampBatch, size: int) -> StampBatch:
    """Returns stamps with masked pixels about them, as small cutouts reach the network."""
    edge = (size - stamps.image.shape[-1]) // 2
    pad = (edge, edge, edge, edge)
    return StampBatch(
        nn.functional.pad(stamps.image, pad).float(),
        nn.functional.pad(stamps.sigma, pad, value=1.0).float(),
        nn.functional.pad(stamps.mask, pad, value=True),
        stamps.psf.float(),
        stamps.gain.float(),
        stamps.sky_sigma.float(),
        stamps.noise_correlation.float(),
    )


def run_chain(
    likelihood: Likelihood, truth: Tensor, seed: int, ess: float, most: int
) -> tuple[np.ndarray, float, float]:
    """Returns draws (S, 7), their effective number, and the autocorrelation time. [steps]"""
    mode = fit(likelihood, torch.tensor([0]), truth)
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(WALKERS, 7, generator=generator, dtype=torch.float64)
    start = mode.u + noise @ torch.linalg.cholesky(mode.covariance[0]).T
    sampler = emcee.EnsembleSampler(
        WALKERS,
        7,
        lambda p: likelihood.log_posterior(0, torch.from_numpy(p)).numpy(),
        vectorize=True,
        moves=[(emcee.moves.DEMove(), 0.8), (emcee.moves.StretchMove(), 0.2)],
    )
    sampler.random_state = np.random.RandomState(seed % 2**32).get_state()
    state, steps, effective, tau = start.numpy(), 0, 0.0, math.inf
    while steps < most:
        block = min(500, most - steps)
        state = sampler.run_mcmc(state, block, skip_initial_state_check=True)
        steps += block
        tau = float(np.max(sampler.get_autocorr_time(tol=0, quiet=True)))
        effective = WALKERS * max(0.0, steps - 10 * tau) / tau if tau > 0 else 0.0
        if steps > 60 * tau and effective >= ess:
            break
    burn = min(int(10 * tau), steps // 2) if math.isfinite(tau) else steps // 2
    return sampler.get_chain(discard=burn, flat=True), effective, tau


def without_repetition(galaxy: RefinedGalaxy, number: int, generator: torch.Generator) -> Tensor:
    """Returns draws accepted with a chance in the ratio of their weights to a large one.

    Weights above it, a thousandth of all, are cut.
    """
    log_w = galaxy.log_weights
    finite = log_w[torch.isfinite(log_w)]
    chance = (log_w - finite.quantile(0.999)).exp().clamp(max=1.0)
    uniform = torch.rand(len(chance), generator=generator, dtype=torch.float64)
    accepted = galaxy.w[uniform < chance]
    return accepted[torch.randperm(len(accepted), generator=generator)[:number]]


def c2st(one: Tensor, two: Tensor, seed: int, epochs: int = 40) -> float:
    """Returns the five-fold accuracy of a small network that tells two samples apart."""
    number = min(len(one), len(two))
    x = torch.cat([one[:number], two[:number]])
    x = ((x - x.mean(0)) / x.std(0)).float()
    y = torch.cat([torch.zeros(number), torch.ones(number)])
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    hits = 0
    for fold in order.chunk(5):
        train = torch.ones(len(x), dtype=torch.bool)
        train[fold] = False
        hits += int((_classifier(x[train], y[train], seed, epochs)(x[fold]) == y[fold]).sum())
    return hits / len(x)


def _classifier(x: Tensor, y: Tensor, seed: int, epochs: int) -> Callable[[Tensor], Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = nn.Sequential(
            nn.Linear(7, 70), nn.ReLU(), nn.Linear(70, 70), nn.ReLU(), nn.Linear(70, 1)
        )
        optimizer = torch.optim.Adam(net.parameters(), lr=1e-3, weight_decay=1e-4)
        for _ in range(epochs):
            for rows in torch.randperm(len(x)).split(128):
                loss = nn.functional.binary_cross_entropy_with_logits(net(x[rows])[:, 0], y[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    return lambda new: (net(new)[:, 0] > 0).float()


def parameters(w: Tensor) -> Tensor:
    """Returns magnitude, ln R_e, ln n, the two coordinates of the shape, and the centre, (S, 7)."""
    p = PriorBox().to_physical(w)
    for name in ("effective_radius", "sersic_index"):
        p[:, INDEX[name]] = p[:, INDEX[name]].log()
    for name in ("axis_ratio", "position_angle"):  # an angle has no plain mean
        p[:, INDEX[name]] = w[:, INDEX[name]]
    return p


def moments(x: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Returns mean and standard deviation of weighted draws, each with shape (7,)."""
    weights = torch.full((len(x),), 1.0 / len(x), dtype=x.dtype) if weights is None else weights
    mean = weights @ x
    return mean, (weights @ (x - mean) ** 2).sqrt()


def difference(galaxy: RefinedGalaxy, chain: Tensor) -> dict[str, float]:
    """Returns the largest shift of a mean [sigma of the chain] and relative change of a width."""
    weights = torch.softmax(galaxy.log_weights, 0)
    found = {}
    for suffix, view in (("", parameters), ("_w", lambda w: w)):
        mean, std = moments(view(galaxy.w), weights)
        expected, sigma = moments(view(chain))
        found[f"shift{suffix}"] = float(((mean - expected) / sigma).abs().max())
        found[f"width{suffix}"] = float((std / sigma - 1.0).abs().max())
    return found


def compare(index: int, args: argparse.Namespace) -> dict[str, object]:
    """Runs both on one galaxy."""
    likelihood, truth, snr = chosen_scene(index, args.size)
    generator = torch.Generator().manual_seed(SEED + 100 + index)
    if args.stand_in:
        network = stand_in(likelihood, truth, generator, draws=3 * args.ess)
    else:
        network = network_of(likelihood, 3 * args.ess, SEED + index)
    start = time.perf_counter()
    galaxy = refine_batch(
        likelihood,
        *network,
        ess=args.ess,
        options=RefineOptions(fallback=False, mask_neighbours=False),
    )[0]
    refined_seconds = time.perf_counter() - start
    start = time.perf_counter()
    chain, effective, tau = run_chain(likelihood, truth, index, args.chain_ess, args.steps)
    draws = torch.from_numpy(chain)
    picked = without_repetition(galaxy, CLASSIFIED, generator)
    thinned = draws[torch.randperm(len(draws), generator=generator)[: len(picked)]]
    params = PriorBox().to_physical(truth)[0]
    return {
        "galaxy": index,
        "snr": snr,
        "radius": float(params[INDEX["effective_radius"]]) / 0.25,
        "n": float(params[INDEX["sersic_index"]]),
        **difference(galaxy, draws),
        "c2st": c2st(picked, thinned, index),
        "classified": len(picked),
        "ess": galaxy.ess,
        "khat": galaxy.khat,
        "method": galaxy.method,
        "chain_ess": effective,
        "tau": tau,
        "refined_seconds": refined_seconds,
        "chain_seconds": time.perf_counter() - start,
    }


def show(rows: list[dict]) -> None:
    print(
        "galaxy    S/N  R_e[px]    n  shift[sigma]  width  (in w)  C2ST (n)      ESS  k-hat  chain"
    )
    passed = 0
    for r in rows:
        good = r["shift"] < 0.1 and r["width"] < 0.05 and r["c2st"] <= 0.53
        passed += good
        print(
            f"{r['galaxy']:6d} {r['snr']:6.0f} {r['radius']:8.2f} {r['n']:4.1f} {r['shift']:13.3f} "
            f"{r['width']:6.1%} ({r['width_w']:5.1%}) {r['c2st']:.3f} ({r['classified']}) "
            f"{r['ess']:8.0f} {r['khat']:6.2f} {r['chain_ess']:6.0f}{'' if good else '  <--'}"
        )
    print(f"{passed} of {len(rows)} within 0.1 sigma, 5 % and C2ST 0.53")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder")
    parser.add_argument("--only", type=int, default=None, help="one galaxy of the 20")
    parser.add_argument("--shard", default="0/1", help="I/N: galaxies I, I + N, ...")
    parser.add_argument("--stand-in", action="store_true", help="no network")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--ess", type=int, default=10_000)
    parser.add_argument("--chain-ess", type=float, default=5000.0)
    parser.add_argument("--steps", type=int, default=20_000, help="longest chain")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.output.mkdir(parents=True, exist_ok=True)
    shard, shards = (int(x) for x in args.shard.split("/"))
    wanted = range(shard, GALAXIES, shards) if args.only is None else [args.only]
    for index in wanted:
        path = args.output / f"galaxy_{index:02d}.json"
        if not path.exists():
            path.write_text(json.dumps(compare(index, args)), encoding="utf-8")
            print(path.name, flush=True)
    rows = [json.loads(p.read_text()) for p in sorted(args.output.glob("galaxy_*.json"))]
    show(rows)
    (args.output / "chains.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
