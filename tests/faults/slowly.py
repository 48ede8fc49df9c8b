"""`deeplegato` with the fake network, chunks of one, and a pause after each chunk.

The tests of interruptions run it as a program, since signals go to processes.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from deeplegato_pp.catalog.checkpoints import WorkFolder
from deeplegato_pp.cli import measuring
from deeplegato_pp.cli.app import main
from deeplegato_pp.cli.journal import Journal
from deeplegato_pp.inference import predictor
from deeplegato_pp.models import storage
from fake_model import TRUTH, FakeModel

SIDE = 32


def load(cls, name=None, device=None, recalibrated=False):
    model = FakeModel(TRUTH)
    model.image_size = SIDE
    return cls(model, "cpu")


def run(pause: float, arguments: list[str]) -> int:
    storage.find = lambda name: Path(name or "default")
    predictor.Predictor.from_pretrained = classmethod(load)
    measuring.CHUNK = 1
    add = Journal.add

    def slowly(self, images, rows):
        add(self, images, rows)
        time.sleep(pause)

    store = WorkFolder.store

    def stored_slowly(self, plan, number, table):
        store(self, plan, number, table)
        time.sleep(pause)

    Journal.add, WorkFolder.store = slowly, stored_slowly
    return main(arguments)


if __name__ == "__main__":
    sys.exit(run(float(sys.argv[1]), sys.argv[2:]))
