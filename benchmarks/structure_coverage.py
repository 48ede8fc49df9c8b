"""Coverage of error bars where galaxies are no Sérsic profiles: kinds of structure, simulated.

    python benchmarks/structure_coverage.py -n 60 [--kinds smooth arms bar] [--seed 1]
    python benchmarks/structure_coverage.py -n 60 --psf-error 0.02     # what the PSF's width fits

Prints, by kind of structure and for widths of the stated noise and honest ones, how often the truth
lies within 1 and 2 sigma of the optimum, over all seven coordinates w; the median inflation of the
widths; and the seconds per galaxy that they cost beside the search for the optimum. For a smooth
galaxy the truth is what was simulated. For the others there are two: the profile that fits the
noiseless image best, which the structure moves along with the estimate (honest widths then cover
more than their level), and the smooth galaxy on which the structure was put, from which it moves
the estimate away.

With --psf-error it prints instead how far ln R_e lies from the best profile, in the median and at
84 %: with the PSF known (as it is), with the whole error fitted, and with as much of it as the
residuals' structure allows; and the median of that part.
"""

from __future__ import annotations

import argparse
import time

import torch
from exact import likelihood_of
from structures import KINDS, best_profile, structured

from deeplegato_pp.data.sersic_simulator import SersicSimulator, SimulatedScene
from deeplegato_pp.inference.fit.fit import fit
from deeplegato_pp.inference.fit.psf_share import fit_less
from deeplegato_pp.inference.fit.structure import widening_at
from deeplegato_pp.models.deeplegato_pp import DeepLeGAToPP
from deeplegato_pp.scene.noise import MODEL_ERROR
from deeplegato_pp.scene.parameters import INDEX
from deeplegato_pp.scene.prior import PriorBox

BOX = PriorBox(
    magnitude=(16.5, 24.5),
    effective_radius=(0.5, 4.0),
    sersic_index=(0.5, 5.0),
    axis_ratio=(0.2, 1.0),
    center_x=(-2.0, 2.0),
    center_y=(-2.0, 2.0),
)
"""Where the simulated galaxies are drawn: resolved and bright enough for structure to be seen."""


def simulated(model: DeepLeGAToPP, kind: str, number: int, seed: int) -> SimulatedScene:
    """Returns galaxies with structure of one kind."""
    simulator = SersicSimulator.from_config(model.config.data, clean=True)
    simulator.prior = BOX
    generator = torch.Generator().manual_seed(seed)
    return structured(simulator.sample_scene(number, generator), kind, 1.0, generator)


def measure(model: DeepLeGAToPP, kind: str, number: int, seed: int, error: float) -> str:
    """Returns the line of one kind."""
    scene = simulated(model, kind, number, seed)
    likelihood = likelihood_of(scene, model.prior).replace(model_error=error)
    smooth = model.prior.to_normal(scene.params)
    started = time.perf_counter()
    optima = fit(likelihood, torch.arange(number), smooth)
    search = time.perf_counter() - started
    truths = {"simulated": smooth}
    good = optima.converged.clone()
    if kind != "smooth":
        best = best_profile(likelihood, scene, smooth)
        truths["best profile"] = best.u
        good &= best.converged
    started = time.perf_counter()
    found = [
        widening_at(likelihood, i, optima[torch.tensor([i])], optima.u[i]) for i in range(number)
    ]
    seconds = time.perf_counter() - started
    honest = torch.stack([f.covariance.diagonal().sqrt() for f in found])
    noise = honest / torch.stack([f.inflation for f in found])
    text = []
    for name, truth in truths.items():
        miss = (optima.u - truth).abs()[good]
        shares = [
            float((miss < level * width[good]).double().mean())
            for width in (noise, honest)
            for level in (1.0, 2.0)
        ]
        text.append(
            f"{name}: noise {shares[0]:.3f} {shares[1]:.3f}, honest {shares[2]:.3f} {shares[3]:.3f}"
        )
    inflation = float(torch.stack([f.inflation.median() for f in found])[good].median())
    cost = f"{search / number:.3f} + {seconds / number:.3f} s"
    return f"{kind:9s} {int(good.sum()):4d}  {'; '.join(text)}; inflation {inflation:.2f}; {cost}"


def measure_psf(model: DeepLeGAToPP, kind: str, number: int, seed: int, psf_error: float) -> str:
    """Returns the line of one kind: ln R_e with more and less of the PSF's error fitted."""
    scene = simulated(model, kind, number, seed)
    known = likelihood_of(scene, model.prior).replace(model_error=MODEL_ERROR)
    smooth = model.prior.to_normal(scene.params)
    best = best_profile(known, scene, smooth)
    rows = torch.arange(number)
    uncertain = known.replace(psf_error=psf_error)
    found = {"PSF known": fit(known, rows, smooth), "whole": fit(uncertain, rows, smooth)}
    uncertain.freeze(rows, found["whole"].u)
    fit_less(uncertain, found["whole"])
    found["part"] = fit(uncertain, rows, found["whole"].u)
    good = best.converged & torch.stack([f.converged for f in found.values()]).all(0)

    def radius(w: torch.Tensor) -> torch.Tensor:
        return model.prior.to_physical(w)[:, INDEX["effective_radius"]].log()

    text = []
    for name, optimum in found.items():
        miss = (radius(optimum.u) - radius(best.u)).abs()[good]
        text.append(f"{name} {float(miss.median()):.4f} {float(miss.quantile(0.84)):.4f}")
    part = float(uncertain.psf_widths.share[good].median())
    return f"{kind:9s} {int(good.sum()):4d}  {'; '.join(text)}; {part:.2f} of the error fitted"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-n", "--number", type=int, default=60, help="galaxies of each kind")
    parser.add_argument("--kinds", nargs="+", default=["smooth", *KINDS])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--model-error", type=float, default=MODEL_ERROR)
    parser.add_argument("--psf-error", type=float, help="relative error of the PSF's width")
    options = parser.parse_args()
    model = DeepLeGAToPP.from_pretrained()
    for i, kind in enumerate(options.kinds):
        seed = 1000 * options.seed + i
        if options.psf_error is None:
            line = measure(model, kind, options.number, seed, options.model_error)
        else:
            line = measure_psf(model, kind, options.number, seed, options.psf_error)
        print(line, flush=True)


if __name__ == "__main__":
    main()
