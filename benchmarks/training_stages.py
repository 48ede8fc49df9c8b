"""Where the time of training goes: images a second of each stage of a step.

    python benchmarks/training_stages.py default
    python benchmarks/training_stages.py colab_a100 training.accelerator=gpu -n 50

Renders, runs forward and backward and steps, each by itself and then all together, after a few
steps to warm up. On a GPU, the images are rendered there, and every stage waits for it to finish.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch

from deeplegato_pp.calibration.truth import best_profiles
from deeplegato_pp.config.schema import Config, load_config
from deeplegato_pp.data.datasets import Batch
from deeplegato_pp.data.loaders import training_set
from deeplegato_pp.training.trainer import DeepLeGAToPPTrainer

WARM_UP = 3
STAGES = ("render", "forward", "backward", "optimizer")


def measure(config: Config, steps: int, device: torch.device) -> dict[str, float]:
    """Returns the seconds per step of each stage."""
    torch.manual_seed(config.training.seed)
    module = DeepLeGAToPPTrainer(config).to(device)
    optimizer = module.configure_optimizers()["optimizer"]  # type: ignore[index]
    stream = training_set(config, WARM_UP + steps, device=device, truth=best_profiles)
    low_precision = "mixed" in config.training.precision
    dtype = torch.float16 if config.training.precision.startswith("16") else torch.bfloat16
    if device.type == "cpu":
        dtype = torch.bfloat16
    seconds = dict.fromkeys(STAGES, 0.0)

    def timed(stage: str, work: Callable[[], object], step: int) -> object:
        start = time.perf_counter()
        result = work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if step >= WARM_UP:
            seconds[stage] += time.perf_counter() - start
        return result

    def forward(batch: Batch) -> torch.Tensor:
        with torch.autocast(device.type, dtype=dtype, enabled=low_precision):
            loss: torch.Tensor = module.objective(module.model, *batch)["loss"]
        return loss

    for step in range(WARM_UP + steps):
        batch: Batch = timed("render", lambda i=step: stream[i], step)  # type: ignore[assignment,misc]
        loss = timed("forward", lambda b=batch: forward(b), step)  # type: ignore[misc]
        timed("backward", loss.backward, step)  # type: ignore[attr-defined]
        timed("optimizer", optimizer.step, step)
        optimizer.zero_grad(set_to_none=True)
    return {stage: total / steps for stage, total in seconds.items()}


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("config", nargs="?", default="default")
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("-n", "--steps", type=int, default=20)
    options = parser.parse_intermixed_args()
    config = load_config(options.config, ["model.backbone.pretrained=false", *options.overrides])
    on_gpu = torch.cuda.is_available() and config.training.accelerator in ("auto", "gpu", "cuda")
    device = torch.device("cuda" if on_gpu else "cpu")
    seconds = measure(config, options.steps, device)
    batch, whole = config.training.batch_size, sum(seconds.values())
    where = torch.cuda.get_device_name() if on_gpu else f"{torch.get_num_threads()} CPU threads"
    print(f"{options.config}: {batch} images a step, {config.data.image_size} px, {where}")
    for stage in STAGES:
        share = seconds[stage] / whole
        print(f"  {stage:10s} {batch / seconds[stage]:10.1f} images/s  {share:5.1%} of a step")
    print(f"  {'together':10s} {batch / whole:10.1f} images/s")
    if on_gpu:
        print(f"  most memory {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB")


if __name__ == "__main__":
    main()
