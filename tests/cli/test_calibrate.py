from __future__ import annotations

import json

import matplotlib
import pytest

from deeplegato_pp.cli.app import main
from tiny_model import save_tiny_model

matplotlib.use("agg")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


def refuse_constants(name: str) -> None:
    raise AssertionError(f"{name} is not strict JSON")


def test_a_run_leaves_figures_pictures_and_a_page(folder, tmp_path, capsys):
    arguments = ["calibrate", "--model", str(folder), "-n", "64", "--detailed", "2"]
    output = tmp_path / "cal"
    assert main([*arguments, "--draws", "60", "-o", str(output), "--write-card"]) == 0
    text = capsys.readouterr().out
    assert f"written: {output / 'calibration.json'}" in text
    content = json.loads((output / "calibration.json").read_text(), parse_constant=refuse_constants)
    assert content["overall"]["galaxies"] == 64
    assert content["settings"]["draws"] == 60
    assert content["model"]["name"] == "tiny"
    assert content["verdict"]["galaxies"] == 2
    pictures = {p.name for p in output.glob("*.png")}
    assert pictures == {
        "ranks.png", "coverage.png", "reliability.png", "pulls.png", "errors.png", "tarp.png",
    }  # fmt: skip
    page = (output / "report.md").read_text()
    assert all(f"({name})" in page for name in pictures)
    assert "## Calibration" in (folder / "README.md").read_text()
    assert main(["info", "--model", str(folder)]) == 0
    assert "network, 64 simulations: coverage at most" in capsys.readouterr().out
    assert main([*arguments, "--draws", "70", "-o", str(output)]) == 2
    assert "--no-resume" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("yaml", "name"),
    [
        ("study: {fog: 1}", "study.fog"),
        ("study: {neighbours: 99}", "study.neighbours"),
        ("data: {conditions: {mist: 1}}", "data.conditions.mist"),
        ("study: {psf_width: wide}", "study.psf_width"),
    ],
)
def test_a_wrong_simulator_is_named(folder, yaml, name, tmp_path, capsys):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml + "\n")
    arguments = ["calibrate", "--model", str(folder), "-n", "64", "--simulator", str(path)]
    assert main([*arguments, "-o", str(tmp_path / "cal")]) == 2
    error = capsys.readouterr().err
    assert name in error
    assert error.count("\n") == 1
    assert not (tmp_path / "cal").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-n", "5"], "at least 20 galaxies, got 5"),
        (["-n", "64", "--model", "no_such_model"], "no_such_model"),
        (["-n", "64", "--simulator", "studies/nonsense"], "studies/neighbours"),
        (["-n", "64", "--draws", "3"], "at least 50, got 3"),
        (["-n", "many"], "--number"),
    ],
)
def test_a_wrong_call_is_one_line(folder, arguments, message, tmp_path, capsys):
    model = [] if "--model" in arguments else ["--model", str(folder)]
    assert main(["calibrate", *model, *arguments, "-o", str(tmp_path / "cal")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "cal").exists()


def test_a_folder_that_cannot_be_is_refused_first(folder, tmp_path, capsys):
    arguments = ["calibrate", "--model", str(folder), "-n", "64"]
    assert main([*arguments, "-o", str(tmp_path / "no" / "where")]) == 2
    assert "does not exist" in capsys.readouterr().err


def test_its_configuration_is_not_written_over(folder, tmp_path, capsys):
    (tmp_path / "report.md").write_text("data: {image_size: 64}\n")
    call = ["calibrate", "--model", str(folder), "-n", "20", "--simulator"]
    assert main([*call, str(tmp_path / "report.md"), "-o", str(tmp_path)]) == 2
    assert "would write over an input, the configuration" in capsys.readouterr().err
    assert (tmp_path / "report.md").read_text() == "data: {image_size: 64}\n"
