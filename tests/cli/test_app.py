from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import deeplegato_pp
from deeplegato_pp.cli.app import main

SRC = Path(deeplegato_pp.__file__).parents[1]


def run(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Runs the command in a process of its own."""
    code = "import sys; from deeplegato_pp.cli.app import main; sys.exit(main())"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(SRC)},
    )


@pytest.mark.parametrize("command", ["predict", "simulate", "train", "calibrate", "info"])
def test_every_command_has_help_with_an_example(command, capsys):
    assert main([command, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"Example: deeplegato {command}" in text


def test_help_loads_nothing_heavy():
    code = (
        "import json, sys\n"
        "from deeplegato_pp.cli.app import main\n"
        "main(['--help'])\n"
        "print(json.dumps(sorted(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": str(SRC)},
    )  # fmt: skip
    loaded = set(json.loads(done.stdout.strip().splitlines()[-1]))
    assert not loaded & {"torch", "numpy", "astropy", "matplotlib", "timm", "scipy"}


def test_the_package_runs_as_a_module(tmp_path):
    command = [sys.executable, "-m", "deeplegato_pp", "predict", "nothing_here.fits"]
    environment = {**os.environ, "PYTHONPATH": str(SRC)}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment
    )
    assert done.returncode == 2
    assert done.stderr.startswith("deeplegato: nothing_here.fits: no such file")


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"deeplegato {deeplegato_pp.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Missing command"),
        (["frobnicate"], "frobnicate"),
        (["predict"], "no image was given"),
        (["predict", "a.fits", "--samples", "0"], "--samples"),
        (["predict", "a.fits", "--noise-type", "loud"], "--noise-type"),
        (["predict", "a.fits", "--no-such-option"], "--no-such-option"),
        (["predict", "a.fits", "--psf-fwhm", "nan"], "--psf-fwhm must be finite, got nan"),
        (["predict", "a.fits", "--noise", "inf"], "--noise must be finite, got inf"),
        (["predict", "a.fits", "--fix", "sersic_index=nan"], "NAME=VALUE with a finite number"),
        (["predict", "a.fits", "--model-error", "1e300"], "model_error must lie in [0, 1]"),
        (["predict", "a.fits", "--star-odds", "nan"], "must be positive, got nan"),
        (["predict", "a.fits", "-o", "table.docx"], "unknown suffix .docx"),
        (["predict", "a.fits", "-o", "nowhere/table.json"], "does not exist"),
        (["predict", "a.fits", "--samples-output", "s.csv"], "unknown suffix .csv"),
        (["predict", "a.fits", "--plot", "p.doc"], "unknown suffix .doc"),
        (["predict", "a.fits", "--model", "no_such_model"], "no_such_model"),
        (["info", "--model", "no_such_model"], "no_such_model"),
        (["train", "no_such_config"], "no_such_config"),
        (["train", "default", "training.no_such_key=1"], "no_such_key"),
        (["simulate", "-n", "2", "-o", "x.fits"], "unknown suffix .fits"),
        (["simulate", "-n", "0", "-o", "x"], "--number"),
    ],
)
def test_a_wrong_call_is_one_plain_line(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("deeplegato: ")
    assert message in captured.err
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_model_fails_without_network_and_network_library():
    code = (
        "import socket, sys\n"
        "def refuse(*_):\n"
        "    sys.exit(7)\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
        "from deeplegato_pp.cli.app import main\n"
        "status = main(['predict', 'a.fits', '--model', 'no_such_model'])\n"
        "sys.exit(8 if 'timm' in sys.modules else status)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(SRC)},
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr
