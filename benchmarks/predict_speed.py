"""Galaxies a second through the network and through refinement, on this machine.

    python benchmarks/predict_speed.py [-n 256] [--refined 24] [--precision 512]
    python benchmarks/predict_speed.py --tiers [--snr 10 500] [--size 128] [--refined 32]

Prior draws at 128 px, 1,000 draws each; the parts of the time, the time of one galaxy alone, and
whether its draws are the same alone and in a batch. With --precision the image network runs in
float32 and in bfloat16 by turns, on so many isolated simulations: what it saves and what it costs.
With --tiers only the rates of network, Laplace and exact tier are printed, with both kinds of
widths: medians of three, over isolated simulations within a range of S/N.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import Counter

import torch

from deeplegato_pp import Observation, Posterior, Predictor, SersicSimulator
from deeplegato_pp.observation.preparation import prepare
from deeplegato_pp.scene.stamps import REFERENCE_PIXEL_SCALE, REFERENCE_ZERO_POINT
from deeplegato_pp.scene.units import stamp_batch


def simulate(number: int) -> list[Observation]:
    """Returns observations of prior draws at the reference instrument."""
    _, images, noise, psf = SersicSimulator().sample(number, torch.Generator().manual_seed(5))
    return [
        Observation.from_array(images[i], psf[i], noise[i], pixel_scale=0.25, zero_point=30.5)
        for i in range(number)
    ]


def isolated(
    predictor: Predictor, number: int, snr: tuple[float, float], size: int
) -> list[Observation]:
    """Returns observations of isolated galaxies within a range of S/N, cut to a size. [px]"""
    simulator = SersicSimulator.from_config(predictor.model.config.data, clean=True)
    generator = torch.Generator().manual_seed(11)
    found: list[Observation] = []
    while len(found) < number:
        scene = simulator.sample_scene(16, generator)
        low = (scene.stamps.image.shape[-1] - size) // 2
        cut = (slice(low, low + size),) * 2
        for i in ((scene.snr >= snr[0]) & (scene.snr <= snr[1])).nonzero()[:, 0].tolist():
            fine = bool(scene.psf.oversampled[i])
            found.append(
                Observation.from_array(
                    scene.stamps.image[i][cut].numpy(),
                    (scene.psf.fine if fine else scene.psf.native)[i].numpy(),
                    scene.stamps.sigma[i][cut].numpy(),
                    pixel_scale=REFERENCE_PIXEL_SCALE,
                    zero_point=REFERENCE_ZERO_POINT,
                    psf_oversampling=2 if fine else 1,
                )
            )
    return found[:number]


def tiers(predictor: Predictor, observations: list[Observation]) -> None:
    """Prints the rates of every tier with both kinds of widths."""
    number = len(observations)
    predictor.posterior(observations[:4])
    for widths in ("noise", "honest"):
        network: list[float] = []
        refined: dict[str, list[float]] = {"laplace": [], "exact": []}
        for _ in range(3):
            started = time.perf_counter()
            posterior = predictor.posterior(observations, widths=widths)
            network.append(number / (time.perf_counter() - started))
            for method, rates in refined.items():
                started = time.perf_counter()
                predictor.refine(posterior, method=method, widths=widths)
                rates.append(number / (time.perf_counter() - started))
        for name, rates in ({"network": network} | refined).items():
            lowest, highest = min(rates), max(rates)
            print(
                f"{widths} widths, {name}: {statistics.median(rates):.2f} galaxies/s "
                f"({lowest:.2f} to {highest:.2f})",
                flush=True,
            )


def network(predictor: Predictor, observations: list[Observation]) -> Posterior:
    """Prints the network's rates; returns the posterior."""
    number = len(observations)
    predictor.posterior(observations[:16])
    started = time.perf_counter()
    posterior = predictor.posterior(observations)
    print(f"posterior: {number / (time.perf_counter() - started):.0f} galaxies/s")
    stamps = stamp_batch([prepare(o) for o in observations])
    with torch.no_grad():
        started = time.perf_counter()
        context = predictor.model.encode(stamps)
        encoded = time.perf_counter()
        for i in range(0, number, 16):
            rows = slice(i, i + 16)
            predictor.model.sample(context[rows], 1000, torch.arange(len(context[rows])))
        sampled = time.perf_counter()
    print(
        f"of it the network {number / (encoded - started):.0f}/s, drawing "
        f"{number / (sampled - encoded):.0f}/s"
    )
    waits = []
    for observation in observations[:20]:
        started = time.perf_counter()
        predictor.posterior(observation)
        waits.append(time.perf_counter() - started)
    print(f"one alone: {1000 * statistics.median(waits):.0f} ms")
    alone, batch = predictor.posterior(observations[3]).w, predictor.posterior(observations).w[3]
    difference = float(((alone - batch).abs() / batch.std(0)).max())
    print(f"largest difference of a draw alone and in the batch: {difference:.1e} sigma")
    return posterior


def refinement(predictor: Predictor, posterior: Posterior) -> None:
    """Prints the rates of both ways to refine."""
    for method in ("exact", "laplace"):
        started = time.perf_counter()
        refined = predictor.refine(posterior, method=method)
        rate = len(refined) / (time.perf_counter() - started)
        print(f"refine {method}: {rate:.2f} galaxies/s, {dict(Counter(refined.method))}")


def precision(predictor: Predictor, number: int) -> None:
    """Prints what bfloat16 in the image network saves, and what it costs in NLL."""
    model = predictor.model
    simulator = SersicSimulator.from_config(model.config.data, clean=True)
    generator = torch.Generator().manual_seed(6)
    seconds: dict[bool, list[float]] = {False: [], True: []}
    nll: dict[bool, list[torch.Tensor]] = {False: [], True: []}
    snr = []
    for _ in range(-(-number // 64)):
        scene = simulator.sample_scene(64, generator)
        w = model.prior.to_normal(scene.params)[:, None]
        snr.append(scene.snr)
        for half in (False, True):
            started = time.perf_counter()
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=half):
                context = model.encode(scene.stamps)
            seconds[half].append(time.perf_counter() - started)
            nll[half].append(-model.log_prob(context, w)[:, 0].detach())
    saved = statistics.median(b / a for a, b in zip(seconds[False], seconds[True], strict=True))
    cost = torch.cat(nll[True]) - torch.cat(nll[False])
    bright = torch.cat(snr) > 100
    error = float(cost.std()) / len(cost) ** 0.5
    print(
        f"bfloat16 takes {saved:.2f} of the time; NLL {float(cost.mean()):+.3f} +- {error:.3f}, "
        f"above S/N 100 {float(cost[bright].mean()):+.3f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-n", "--number", type=int, default=256)
    parser.add_argument("--refined", type=int, default=24)
    parser.add_argument("--precision", type=int, default=0, help="simulations in both precisions")
    parser.add_argument("--tiers", action="store_true", help="rates of all tiers and widths only")
    parser.add_argument("--snr", type=float, nargs=2, default=(10.0, 500.0), help="with --tiers")
    parser.add_argument("--size", type=int, default=128, help="with --tiers [px]")
    options = parser.parse_args()
    predictor = Predictor.from_pretrained()
    if options.tiers:
        snr = (options.snr[0], options.snr[1])
        tiers(predictor, isolated(predictor, options.refined, snr, options.size))
        return
    posterior = network(predictor, simulate(options.number))
    refinement(predictor, posterior[list(range(options.refined))])
    if options.precision:
        precision(predictor, options.precision)


if __name__ == "__main__":
    main()
