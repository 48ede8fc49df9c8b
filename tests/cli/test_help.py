from __future__ import annotations

import pytest
from typer.main import get_command

from deeplegato_pp.cli.app import app, main
from deeplegato_pp.cli.help import FEW, GROUPS, GroupedCommand

COMMANDS = get_command(app).commands


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_option_of_a_long_help_stands_in_a_group(name):
    command = COMMANDS[name]
    assert isinstance(command, GroupedCommand)
    options = [p.name for p in command.params if p.param_type_name == "option"]
    if len(options) > FEW:
        assert not set(options) - {n for names in GROUPS.values() for n in names}


def test_headings_come_in_order_and_each_option_once(capsys):
    assert main(["predict", "--help"]) == 0
    text = capsys.readouterr().out
    headings = ("Arguments", "Input", "PSF", "Noise and sky", "Posterior", "Refinement", "Output")
    places = [text.index(f"\n{heading}:\n") for heading in (*headings, "Running", "Options")]
    assert places == sorted(places)
    assert text.count("\n  --psf FILE") == 1
    assert "Detection" not in text
    assert main(["regions", "--help"]) == 0
    assert "Output:" not in capsys.readouterr().out


def test_no_parameter_is_in_two_groups():
    names = [n for group in GROUPS.values() for n in group]
    assert len(names) == len(set(names))
