"""The comparison with other programs: its start values, its runner, and a small run of it."""

from __future__ import annotations

import math
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from scipy.special import gammaincinv

PEERS = Path(__file__).parents[1] / "benchmarks" / "peers"


@pytest.fixture
def peers(monkeypatch):
    """Puts the comparison's modules on the path, and forgets them afterwards."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(PEERS))
    yield
    for name in set(sys.modules) - before:
        if Path(getattr(sys.modules[name], "__file__", None) or "/").is_relative_to(PEERS):
            del sys.modules[name]


def gaussian(size: int, x: float, y: float, q: float, angle: float) -> np.ndarray:
    """An elliptical Gaussian of 3 px along its major axis, of 1,000 units."""
    yy, xx = np.mgrid[:size, :size].astype(float)
    turn = math.radians(angle + 90.0)
    along = (xx - x) * math.cos(turn) + (yy - y) * math.sin(turn)
    across = (yy - y) * math.cos(turn) - (xx - x) * math.sin(turn)
    image = np.exp(-0.5 * (along**2 + (across / q) ** 2) / 9.0)
    return 1000.0 * image / image.sum()


def test_moments_find_a_galaxy(peers):
    from galaxy import moments

    image = gaussian(61, 32.3, 28.1, 0.6, 40.0)
    start = moments(image, np.full((61, 61), 0.1), np.zeros((61, 61), bool))
    assert (start.x, start.y) == pytest.approx((32.3, 28.1), abs=0.05)
    assert start.axis_ratio == pytest.approx(0.6, abs=0.03)
    assert start.angle == pytest.approx(40.0, abs=1.0)
    assert start.flux == pytest.approx(1000.0, rel=0.02)
    # Half of a Gaussian's light lies within 1.177 sigma.
    assert start.radius == pytest.approx(1.177 * 3.0, rel=0.1)


def test_moments_of_an_empty_image_are_a_start(peers):
    from galaxy import moments

    noise = np.random.default_rng(1).normal(size=(41, 41))
    start = moments(noise - 1.0, np.ones((41, 41)), np.zeros((41, 41), bool))
    assert start.flux > 0
    assert start.radius >= 1.0


@pytest.mark.parametrize("index", [0.6, 1.0, 2.5, 4.0, 7.0])
def test_the_flux_of_a_profile(peers, index):
    from galaxy import sersic_flux

    b = gammaincinv(2 * index, 0.5)
    exact = 2 * math.pi * 9.0 * 0.5 * index * math.exp(b) * b ** (-2 * index)
    exact *= math.gamma(2 * index)
    assert sersic_flux(1.0, 3.0, index, 0.5) == pytest.approx(exact, rel=1e-3)


def test_galaxies_are_kept_as_they_are(peers, tmp_path):
    from galaxy import Galaxy, Start

    arrays = [np.arange(4.0).reshape(2, 2) + i for i in range(4)]
    galaxy = Galaxy(*arrays, np.zeros((2, 2), bool), Start(3.0, 2.0, 0.5, 10.0, 1.0, 1.5))
    galaxy.save(tmp_path / "one.npz")
    again = Galaxy.load(tmp_path / "one.npz")
    assert again.start == galaxy.start
    np.testing.assert_array_equal(again.psf_bare, galaxy.psf_bare)


def test_a_program_that_dies_or_hangs_loses_one_galaxy(peers, tmp_path, monkeypatch):
    """The second galaxy ends the process, the third takes for ever, the fourth is fine."""
    import runner
    from programs import Program

    worker = tmp_path / "worker.py"
    worker.write_text(
        "import json, os, sys, time\n"
        "print(json.dumps({'versions': {}}), flush=True)\n"
        "for path in sys.argv[4:]:\n"
        "    name = os.path.basename(path)[:-4]\n"
        "    if name == 'b': os._exit(3)\n"
        "    if name == 'c': time.sleep(60)\n"
        "    print(json.dumps({'id': name, 'seconds': 0.1, 'fit': {'flux': 1.0}}), flush=True)\n"
    )
    monkeypatch.setattr(runner, "HERE", tmp_path)
    monkeypatch.setattr(runner, "START_LIMIT", 5.0)
    paths = [tmp_path / f"{n}.npz" for n in "abcd"]
    program = Program("odd", "none", limit=1.0)
    runner.run(program, tmp_path, {"small": paths}, tmp_path)
    log = tmp_path / "answers" / "small" / "odd.jsonl"
    lines = {line["id"]: line for line in runner.read(log) if "id" in line}
    assert set(lines) == set("abcd")
    assert "status 3" in lines["b"]["failed"]
    assert "more than" in lines["c"]["failed"]
    assert "failed" not in lines["d"]
    size = log.stat().st_size
    runner.run(program, tmp_path, {"small": paths}, tmp_path)  # nothing is left to do
    assert log.stat().st_size == size
    table = runner.collect(tmp_path, [program]).to_pandas()
    assert sorted(table["id"]) == list("abcd")


def test_figures_of_merit_know_the_truth(peers, tmp_path):
    """One program is twice as far off as another, and only the other states error bars."""
    import json

    import merit
    import pandas as pd

    rng = np.random.default_rng(1)
    home = tmp_path / "sets" / "sersic"
    home.mkdir(parents=True)
    values = {"flux": 10.0, "radius": 4.0, "index": 2.0, "axis_ratio": 0.5, "angle": 30.0}
    truth = {f"{i}": values | {"snr": 50.0, "x": 9.0, "y": 9.0} for i in range(400)}
    (home / "truth.json").write_text(json.dumps(truth))
    rows = []
    for name in truth:
        off = 0.01 * rng.normal()
        for program, factor in (("statmorph", 2.0), ("DeepLeGATo++ exact, honest widths", 1.0)):
            row = {"set": "sersic", "program": program, "id": name, "failed": None} | values
            row |= {"radius": 4.0 * math.exp(factor * off), "x": 9.0, "y": 9.0}
            rows.append(row | ({"radius_std": 0.04} if factor == 1.0 else {}))
    pd.DataFrame(rows).to_parquet(tmp_path / "answers.parquet")
    answers = merit.load(tmp_path, "sersic")
    beside = merit.beside(answers)
    assert list(beside["program"]) == ["statmorph"]
    assert beside["ln R_e"][0].startswith("2.00")
    honest = merit.honesty(answers).set_index("program")["ln R_e"]
    one, two = (float(x) for x in honest["DeepLeGATo++ exact, honest widths"].split("/"))
    assert one == pytest.approx(0.68, abs=0.08)
    assert two == pytest.approx(0.95, abs=0.04)
    assert not isinstance(honest["statmorph"], str)


def test_a_line_that_was_cut_off_is_written_over(peers, tmp_path):
    import runner

    log = tmp_path / "log.jsonl"
    runner.append(log, {"id": "a"})
    with log.open("a") as file:
        file.write('{"id": "b", "fi')
    runner.append(log, {"id": "c"})
    assert [line["id"] for line in runner.read(log)] == ["a", "c"]


def test_an_unknown_program_is_named(peers):
    from programs import chosen

    with pytest.raises(ValueError, match="'galfitt'"):
        chosen(["galfitt"])
    assert {p.name.split()[0] for p in chosen(["pysersic"])} == {"pysersic"}


@pytest.mark.slow
@pytest.mark.skipif(find_spec("uv") is None, reason="the environments of the peers need uv")
def test_ten_galaxies_through_two_peers(tmp_path):
    """From nothing to the report; the peers agree with the truth."""
    command = [sys.executable, str(PEERS)]
    run = [*command, "run", str(tmp_path), "-n", "6", "4", "--programs", "pyimfit", "statmorph"]
    subprocess.run(run, check=True)
    subprocess.run([*command, "report", str(tmp_path), "-o", str(tmp_path / "out")], check=True)
    page = (tmp_path / "out" / "peers.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| pyimfit LM | 100-1000 | ")]
    error = float(rows[0].split("|")[7])
    assert error < 0.1, "the median error of ln R_e of bright galaxies"
