"""Fine-tuning on labelled real galaxies: what it does to simulations, and to galaxies held back.

    python benchmarks/training_real.py cases.ecsv -o runs/real --steps 300 --share 0.1

The table has the columns file, source, id, tier, pixel_scale, flags and references called
ref_effective_radius_px, ref_sersic_index, ref_axis_ratio, ref_position_angle and ref_magnitude, NaN
where unknown. Every third galaxy (by source and id, all its images together) is held back. Printed
for the network before and after: NLL and coverage on fresh simulations, and on the galaxies held
back the median error of each known parameter, in the coordinates w and over the posterior's width.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from astropy import units as u
from astropy.table import QTable, Table
from training_choices import measure

from deeplegato_pp.config.schema import load_config
from deeplegato_pp.data.galaxies import GalaxyDataset
from deeplegato_pp.models.deeplegato_pp import DeepLeGAToPP
from deeplegato_pp.scene.parameters import NAMES
from deeplegato_pp.training import train

DRAWS = 1000
REFERENCES = ("magnitude", "sersic_index", "axis_ratio", "position_angle")


def split(cases: Path, folder: Path) -> tuple[Path, Path]:
    """Writes tables of the galaxies to learn from and of those held back."""
    table = Table.read(cases)
    flags = np.ma.filled(table["flags"].astype(str), "")
    usable = (table["tier"] == "A") & (np.char.find(np.asarray(flags, str), "degenerate") < 0)
    usable &= np.isfinite(np.asarray(table["ref_sersic_index"], float))
    table = table[usable]
    galaxies = [f"{row['source']}/{row['id']}" for row in table]
    held = set(sorted(set(galaxies))[::3])
    made = QTable({"file": [str((cases.parent / name).resolve()) for name in table["file"]]})
    radius = np.asarray(table["ref_effective_radius_px"]) * np.asarray(table["pixel_scale"])
    made["effective_radius"] = radius * u.arcsec
    for name in REFERENCES:
        made[name] = np.asarray(table[f"ref_{name}"], float)
    back = np.array([name in held for name in galaxies])
    paths = folder / "learnt.ecsv", folder / "held_back.ecsv"
    for path, chosen in zip(paths, (~back, back), strict=True):
        made[chosen].write(path, overwrite=True)
    print(f"{len(set(galaxies)) - len(held)} galaxies to learn from, {len(held)} held back")
    return paths


@torch.no_grad()
def real_errors(model: DeepLeGAToPP, table: Path) -> str:
    """Returns a line with the median error of each parameter on real galaxies."""
    galaxies = GalaxyDataset(table, model.prior, 1, 1, image_size=model.image_size, augment=False)
    draws, _ = model.sample(model.encode(galaxies.stamps), DRAWS, torch.arange(len(galaxies.paths)))
    error = (draws.mean(1) - galaxies.w).abs()
    pull = error / draws.std(1)
    parts = []
    for i, name in enumerate(NAMES):
        known = ~torch.isnan(galaxies.w[:, i])
        if bool(known.any()):
            middle = float(error[known, i].median()), float(pull[known, i].median())
            parts.append(f"{name} {middle[0]:.3f} ({middle[1]:.1f} sigma, {int(known.sum())})")
    return ", ".join(parts)


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("cases", type=Path)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--model", default="default")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--share", type=float, default=0.1, help="of each batch that is real")
    parser.add_argument("--test", type=int, default=2000, help="simulations to measure on")
    options = parser.parse_intermixed_args()
    options.output.mkdir(parents=True, exist_ok=True)
    learnt, held_back = split(options.cases, options.output)
    before = DeepLeGAToPP.from_pretrained(options.model)
    settings = [
        f"model.init={options.model}",
        f"data.real_data_path={learnt}",
        f"data.real_share={options.share}",
        f"training.max_steps={options.steps}",
        f"training.steps_per_epoch={options.steps}",
        f"training.warmup_steps={options.steps // 10}",
        "training.scheduler=cosine",
        "training.learning_rate=3e-4",
        "training.ema_decay=0.98",
        "validation.num_images=256",
        f"logging.output_dir={options.output / 'run'}",
        "logging.progress_bar=false",
    ]
    own = {name: before.config.to_dict()[name] for name in ("model", "data")}
    after = train(load_config(own, [*settings, *options.overrides]))
    for name, model in (("before", before), ("after", after.cpu())):
        figures = measure(model, options.test, clean=False)
        whole = figures["all"]
        print(f"{name}: simulations NLL {whole['nll']:.2f} +- {whole['nll_error']:.2f}, ", end="")  # type: ignore[index]
        print(f"68 % intervals hold {whole['coverage_68']:.1%}")  # type: ignore[index]
        print(f"  held back: {real_errors(model, held_back)}")


if __name__ == "__main__":
    main()
