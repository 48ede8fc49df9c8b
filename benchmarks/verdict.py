"""What the verdict says: of right images, of spoilt ones, and of what is no galaxy at all.

    python benchmarks/verdict.py [-n 200] [--model FOLDER] [--refine laplace|exact] [--real FOLDER]
        [-o verdict.json]

Per case: share of good, caution and bad; of the galaxies whose 95 % interval misses the truth by
more than three posterior standard deviations in a parameter (gross failures), the share that is not
called good; and the flags. The right images are `clean` and `full` (masks and neighbours as in
training: a neighbour is to be seen); the spoilt ones are the studies of the package. With --real,
the FITS files of a folder too: by file name those called bad.
"""

from __future__ import annotations

import argparse
import json
import math
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from deeplegato_pp import Observation, Posterior, Predictor
from deeplegato_pp.calibration.measure import largest_miss, observations_of
from deeplegato_pp.calibration.settings import Simulations
from deeplegato_pp.calibration.truth import best_profiles
from deeplegato_pp.config.schema import CONFIG_DIR
from deeplegato_pp.data import SersicSimulator
from deeplegato_pp.data.datasets import stream_generator
from deeplegato_pp.data.sersic_simulator import SimulatedScene
from deeplegato_pp.data.studies import apply_study
from deeplegato_pp.errors import InputError
from deeplegato_pp.flags import Flag
from deeplegato_pp.models import DeepLeGAToPP

GROSS = 3.0
SEED = 77_000_001
BATCH = 32
QUALITIES = ("good", "caution", "bad")

Spoil = Callable[[SimulatedScene, torch.Generator], SimulatedScene]


@dataclass
class Tally:
    """What was said of one case."""

    name: str
    quality: Counter[str] = field(default_factory=Counter)
    flags: Counter[str] = field(default_factory=Counter)
    gross: Counter[str] = field(default_factory=Counter)
    right: Counter[str] = field(default_factory=Counter)

    def add(self, posterior: Posterior, miss: np.ndarray | None = None) -> None:
        """Counts some galaxies."""
        self.quality.update(posterior.quality)
        for names in posterior.flag_names:
            self.flags.update(names)
        if miss is not None:
            for quality, far in zip(posterior.quality, miss > GROSS, strict=True):
                (self.gross if far else self.right)[quality] += 1

    def row(self) -> dict[str, object]:
        """Returns the case's figures."""
        total, gross = self.quality.total(), self.gross.total()
        right = self.right.total()
        return {
            "case": self.name,
            "number": total,
            **{q: self.quality[q] / total for q in QUALITIES},
            "gross_failures": gross,
            "caught": 1 - self.gross["good"] / gross if gross else None,
            "caught_as_bad": self.gross["bad"] / gross if gross else None,
            "bad_among_right": self.right["bad"] / right if right else None,
            "flags": {k: round(v / total, 3) for k, v in self.flags.most_common()},
        }


# --- what is simulated --------------------------------------------------------------------------


def pixels_replaced(make: Callable[[SimulatedScene, torch.Generator], torch.Tensor]) -> Spoil:
    """Returns a way to spoil a scene by other pixels."""
    return lambda scene, generator: replace(
        scene, stamps=replace(scene.stamps, image=make(scene, generator))
    )


def white(scene: SimulatedScene, generator: torch.Generator) -> torch.Tensor:
    """Noise as the map says, and nothing else."""
    return scene.stamps.sigma * torch.randn(scene.stamps.image.shape, generator=generator)


def blank_sky(scene: SimulatedScene, generator: torch.Generator) -> torch.Tensor:
    """Noise and some twenty sources too faint to be seen one by one."""
    noise = white(scene, generator)
    size = noise.shape[-1]
    kernel = scene.psf.native / scene.psf.native.amax((1, 2), keepdim=True)
    half = kernel.shape[-1] // 2
    padded = torch.nn.functional.pad(noise, (half,) * 4)
    for _ in range(20):
        x, y = torch.randint(0, size, (2,), generator=generator).tolist()
        padded[:, y : y + 2 * half + 1, x : x + 2 * half + 1] += kernel
    return padded[:, half : half + size, half : half + size]


def star(scene: SimulatedScene, generator: torch.Generator) -> torch.Tensor:
    """A point source of the galaxy's flux in its place, at a half-light radius of 0.02 px."""
    params = scene.params.clone()
    params[:, 1] = 0.02 * 0.25
    params[:, 2:4] = 1.0
    return with_noise(scene, light_of(scene, params), generator)


def merger(scene: SimulatedScene, generator: torch.Generator) -> torch.Tensor:
    """A second galaxy of 0.3 to 1 of the flux, one to two half-light radii away."""
    params, batch = scene.params.clone(), len(scene.params)
    u = torch.rand(batch, 6, generator=generator, dtype=torch.float64)
    params[:, 0] += -2.5 * torch.log10(0.3 + 0.7 * u[:, 0])
    distance = (1.0 + u[:, 1]) * (params[:, 1] / 0.25).clamp(min=3.0, max=30.0)
    params[:, 5] += distance * (2 * math.pi * u[:, 2]).cos()
    params[:, 6] += distance * (2 * math.pi * u[:, 2]).sin()
    params[:, 2] = 0.5 + 4.0 * u[:, 3]
    params[:, 3] = 0.3 + 0.7 * u[:, 4]
    params[:, 4] = 180.0 * u[:, 5]
    return with_noise(scene, scene.model + light_of(scene, params), generator)


def cosmic_rays(scene: SimulatedScene, generator: torch.Generator) -> torch.Tensor:
    """Ten tracks of 3 to 12 px and 20 to 2000 sigma, nobody's PSF in them."""
    image = scene.stamps.image.clone()
    size = image.shape[-1]
    for row in range(len(image)):
        for _ in range(10):
            x, y, angle, length, height = torch.rand(5, generator=generator).tolist()
            steps = torch.arange(3 + int(9 * length))
            columns = (x * size + steps * math.cos(2 * math.pi * angle)).long().clamp(0, size - 1)
            lines = (y * size + steps * math.sin(2 * math.pi * angle)).long().clamp(0, size - 1)
            image[row, lines, columns] += 20.0 * 100.0**height
    return image


def saturated(scene: SimulatedScene, generator: torch.Generator) -> torch.Tensor:
    """The galaxy, made at least 200 sigma high, cut off at 40 % of its peak."""
    peak = scene.model.amax((1, 2), keepdim=True)
    image = with_noise(scene, scene.model * (200.0 / peak).clamp(min=1.0), generator)
    return torch.minimum(image, 0.4 * image.amax((1, 2), keepdim=True))


def light_of(scene: SimulatedScene, params: torch.Tensor) -> torch.Tensor:
    """Noiseless images of other galaxies through the scene's PSFs."""
    columns = SersicSimulator(scene.model.shape[-1]).columns(params).float()
    return scene.psf.render(columns, scene.model.shape[-1], torch.arange(len(params)))


def with_noise(
    scene: SimulatedScene, model: torch.Tensor, generator: torch.Generator
) -> torch.Tensor:
    """An image of a model with the noise that the stamp says it has."""
    gain = scene.stamps.gain[:, None, None]
    sigma = (scene.stamps.sigma**2 + model.clamp_min(0.0) / gain).sqrt()
    return model + sigma * torch.randn(model.shape, generator=generator)


ODD: dict[str, Spoil] = {
    "star": pixels_replaced(star),
    "merger": pixels_replaced(merger),
    "cosmic rays": pixels_replaced(cosmic_rays),
    "saturated core": pixels_replaced(saturated),
    "blank sky": pixels_replaced(blank_sky),
    "noise only": pixels_replaced(white),
    "upside-down": pixels_replaced(lambda scene, _: -scene.stamps.image),
    "all zero": pixels_replaced(lambda scene, _: torch.zeros_like(scene.stamps.image)),
}
"""Images that are no Sérsic galaxy, or not only one; their truth has no meaning."""


def studies(model: DeepLeGAToPP) -> Iterator[tuple[str, SersicSimulator, Spoil]]:
    """Yields the package's studies: name, simulator and what is done to its scenes."""
    for path in sorted((CONFIG_DIR / "studies").glob("*.yaml")):
        made = Simulations.of(model, f"studies/{path.stem}", SEED)
        yield path.stem, made.simulator, lambda s, g, study=made.study: apply_study(s, study, g)


# --- measuring ----------------------------------------------------------------------------------


def measure(
    predictor: Predictor,
    tally: Tally,
    simulator: SersicSimulator,
    spoil: Spoil,
    number: int,
    refine: str | None,
) -> Tally:
    """Measures galaxies of a simulator and counts what is said of them."""
    for step, start in enumerate(range(0, number, BATCH)):
        generator = stream_generator(SEED, step)
        scene = spoil(simulator.sample_scene(BATCH, generator), generator)
        wanted = min(BATCH, number - start)
        posterior = predictor.posterior(
            observations_of(scene, wanted), 500, widths="noise" if refine else "honest"
        )
        if refine:
            posterior = predictor.refine(posterior, refine)
        miss = None
        if tally.name not in ODD:
            miss = largest_miss(posterior, scene.params[:wanted].double().numpy())
        tally.add(posterior, miss)
    return tally


def measure_files(predictor: Predictor, folder: Path) -> tuple[Tally, list[str]]:
    """Measures a folder's FITS files; returns the count and a line on each that is not good."""
    tally, lines = Tally(str(folder.name)), []
    for path in sorted(folder.rglob("*.fits")):
        try:
            observation = Observation.from_fits(path)
        except InputError as error:
            lines.append(f"refused  {path.relative_to(folder)}: {error}")
            continue
        posterior = predictor.posterior([observation], 500)
        tally.add(posterior)
        names = ",".join(n for n in posterior.flag_names[0] if Flag[n.upper()].level != "good")
        lines.append(
            f"{posterior.quality[0]:8s} {path.relative_to(folder)!s:45s} "
            f"chi2 {posterior.chi2[0]:8.2f} p {posterior.chi2_p[0]:.1e} "
            f"ood {posterior.ood[0]:.2f} {names}"
        )
    return tally, lines


def show(row: dict[str, object]) -> None:
    """Prints one case."""
    caught = "" if row["caught"] is None else f"{row['caught']:.0%} of {row['gross_failures']}"
    flags = ", ".join(f"{k} {v:.0%}" for k, v in list(row["flags"].items())[:9])  # type: ignore[attr-defined]
    print(
        f"{row['case']:18s}{row['number']:6d}"
        + "".join(f"{row[q]:9.1%}" for q in QUALITIES)
        + f"  {caught:12s}  {flags}",
        flush=True,
    )


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("-n", "--number", type=int, default=200, help="galaxies per case")
    parser.add_argument("--clean", type=int, default=None, help="galaxies of clean and full")
    parser.add_argument("--cases", nargs="*", default=None, help="only these")
    parser.add_argument("--model", default=None)
    parser.add_argument("--refine", choices=("laplace", "exact"), default=None)
    parser.add_argument("--real", type=Path, default=None, help="folder of FITS files")
    parser.add_argument("-o", "--output", type=Path, default=None, help="JSON file")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    predictor = Predictor.from_pretrained(options.model)
    config = predictor.model.config.data
    cases: list[tuple[str, SersicSimulator, Spoil]] = [
        ("clean", SersicSimulator.from_config(config, clean=True), lambda s, _: s),
        ("full", SersicSimulator.from_config(config, truth=best_profiles), lambda s, _: s),
        *studies(predictor.model),
        *((name, SersicSimulator.from_config(config, clean=True), ODD[name]) for name in ODD),
    ]
    print(f"{'case':18s}{'n':>6s}{'good':>9s}{'caution':>9s}{'bad':>9s}  caught        flags")
    rows = []
    for name, simulator, spoil in cases:
        if options.cases is not None and name not in options.cases:
            continue
        number = options.number
        if name in ("clean", "full") and options.clean is not None:
            number = options.clean
        rows.append(measure(predictor, Tally(name), simulator, spoil, number, options.refine).row())
        show(rows[-1])
    if options.real:
        tally, lines = measure_files(predictor, options.real)
        rows.append(tally.row())
        show(rows[-1])
        print("\n".join(lines))
    if options.output:
        options.output.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
