"""A model that version 0.1 wrote, with the numbers it gave then (`version_0_1/`)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from deeplegato_pp.models import DeepLeGAToPP
from deeplegato_pp.scene.stamps import StampBatch

FOLDER = Path(__file__).with_name("version_0_1")


def blob(side: int, width: float) -> torch.Tensor:
    a = torch.arange(side) - (side - 1) / 2
    profile = torch.exp(-0.5 * (a / width) ** 2)
    return profile[:, None] * profile


@pytest.fixture
def stamps() -> StampBatch:
    image = torch.stack([50 * blob(64, 4.0), 200 * blob(64, 2.5)])
    psf = blob(43, 3.0)
    return StampBatch(
        image,
        torch.ones_like(image),
        torch.zeros_like(image, dtype=torch.bool),
        (psf / psf.sum()).expand(2, -1, -1),
        torch.full((2,), 100.0),
        torch.full((2,), 0.01),
        torch.tensor([1.0, 2.0]),
    )


@torch.no_grad()
def test_it_loads_and_gives_the_same_numbers(stamps):
    model = DeepLeGAToPP.from_pretrained(FOLDER)
    expected = json.loads((FOLDER / "expected.json").read_text())
    assert json.loads((FOLDER / "config.json").read_text())["version"] == "0.1.0"
    context = model.encode(stamps)
    w = torch.linspace(-1.0, 1.0, 14).reshape(2, 1, 7)
    log_prob = model.log_prob(context, w)[:, 0]
    torch.testing.assert_close(log_prob, torch.tensor(expected["log_prob"]), rtol=0, atol=2e-3)
    draws = model.sample(context, 5, torch.arange(2))[0]
    mean = torch.tensor(expected["mean_of_draws"], dtype=draws.dtype)
    torch.testing.assert_close(draws.mean(1), mean, rtol=0, atol=2e-3)
    assert model.prior.effective_radius == (0.1, 1.5)


@torch.no_grad()
def test_it_is_written_again_as_it_is_now(stamps, tmp_path):
    model = DeepLeGAToPP.from_pretrained(FOLDER)
    again = DeepLeGAToPP.from_pretrained(model.save_pretrained(tmp_path / "again"))
    for name, value in model.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name
    assert again.config == model.config
