"""Counts what becomes of many odd inputs.

    python benchmarks/fuzz_counts.py [--inputs 10000] [--seed 0]

The inputs are those of ``tests/fuzz``, a seventh of each kind. Whatever is neither a clear
error, a failed or flagged row, nor right ends the count with its traceback.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from deeplegato_pp.inference.predictor import Predictor
from deeplegato_pp.models import storage
from fuzz import outcomes, strategies


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", help="some kinds only")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        storage.find = lambda asked: folder
        Predictor.from_pretrained = outcomes.predictor
        for kind, (judge, parts) in kinds(folder).items():
            if not options.kinds or kind in options.kinds:
                count(kind, judge, parts, max(1, options.inputs // 7), options.seed)


def kinds(folder: Path) -> dict[str, tuple[Callable[..., str], tuple[Any, ...]]]:
    """What is drawn, and what judges it."""
    s = strategies
    return {
        "arrays": (outcomes.of_arrays, (s.IMAGES, s.NOISES, s.OPTIONS)),
        "files": (
            outcomes.of_damaged_file,
            (st.just(folder / "f.fits"), s.DAMAGE, s.ENDS, s.CARDS, s.NUMBERS),
        ),
        "columns": (outcomes.of_columns, (s.LISTS,)),
        "lists": (outcomes.of_list, (st.just(folder / "l.csv"), s.TABLES)),
        "settings": (outcomes.of_overrides, (st.lists(s.SETTINGS, max_size=3),)),
        "configurations": (outcomes.of_configuration, (st.just(folder / "c.yaml"), s.SOURCES)),
        "calls": (outcomes.of_call, (st.just(folder), s.CALLS)),
    }


def count(
    kind: str, judge: Callable[..., str], parts: tuple[Any, ...], inputs: int, start: int
) -> None:
    """Prints how many inputs of a kind came out in which way, and the CPU time."""
    counts: Counter[str] = Counter()
    started = time.process_time()

    def judged(drawn: tuple[Any, ...]) -> None:
        counts[judge(*drawn)] += 1

    once = settings(
        max_examples=inputs,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    seed(start)(once(given(st.tuples(*parts))(judged)))()
    told = ", ".join(f"{n} {what}" for what, n in sorted(counts.items()))
    print(
        f"{kind}: {sum(counts.values())} inputs: {told}; {time.process_time() - started:.0f} s",
        flush=True,
    )


if __name__ == "__main__":
    main()
