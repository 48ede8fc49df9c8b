"""Each knob of a study does what it says, and nothing else."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
import torch

from deeplegato_pp.calibration.settings import SimulatorConfig
from deeplegato_pp.config.schema import CONFIG_DIR, ConditionsConfig, DataConfig, merge_configs
from deeplegato_pp.data.sersic_simulator import SersicSimulator, SimulatedScene
from deeplegato_pp.data.studies import StudyConfig, apply_study
from deeplegato_pp.errors import ConfigError
from deeplegato_pp.observation.effective_psf import psf_fwhm
from deeplegato_pp.scene.prior import PriorBox

SHIPPED = sorted((CONFIG_DIR / "studies").glob("*.yaml"))


@pytest.fixture(scope="module")
def scene() -> SimulatedScene:
    conditions = ConditionsConfig(fixed_variance=0.3).clean()
    prior = PriorBox(magnitude=(18.0, 23.0), effective_radius=(0.5, 1.5))
    simulator = SersicSimulator(64, prior=prior, conditions=conditions)
    return simulator.sample_scene(24, torch.Generator().manual_seed(5))


def spoilt(scene: SimulatedScene, **knobs: float) -> SimulatedScene:
    return apply_study(scene, StudyConfig(**knobs), torch.Generator().manual_seed(1))


def test_nothing_wrong_changes_nothing(scene):
    same = spoilt(scene)
    for f in fields(scene.stamps):
        now, before = getattr(same.stamps, f.name), getattr(scene.stamps, f.name)
        assert now is before is None or torch.equal(now, before), f.name


def test_the_truth_stays(scene):
    everything = spoilt(
        scene, neighbours=2, psf_width=1.1, noise_correlation=0.3, gain_factor=2.0, sky_slope=0.2,
    )  # fmt: skip
    assert torch.equal(everything.params, scene.params)
    assert torch.equal(everything.model, scene.model)
    assert torch.equal(everything.snr, scene.snr)
    assert (everything.stamps.image[everything.stamps.mask] == 0).all()
    assert torch.isfinite(everything.stamps.image).all()


def test_neighbours_add_light_and_no_mask(scene):
    crowded = spoilt(scene, neighbours=3)
    assert torch.equal(crowded.stamps.mask, scene.stamps.mask)
    added = (crowded.stamps.image - scene.stamps.image).sum((1, 2))
    assert (added > 10.0).all()


def test_the_given_psf_is_wider_and_the_image_is_not(scene):
    wide = spoilt(scene, psf_width=1.05)
    pairs = zip(wide.psf.fine.numpy(), scene.psf.fine.numpy(), strict=True)
    ratio = [psf_fwhm(given) / psf_fwhm(true) for given, true in pairs]
    assert float(np.median(ratio)) == pytest.approx(1.05, abs=0.004)
    assert torch.equal(wide.stamps.image, scene.stamps.image)
    assert wide.psf.fine.sum((1, 2)) == pytest.approx(torch.ones(24), abs=1e-5)
    assert not torch.equal(wide.stamps.psf, scene.stamps.psf)


@pytest.mark.parametrize("wanted", [0.2, 0.4, 0.65])
def test_noise_of_adjacent_pixels_correlates(scene, wanted):
    image = spoilt(scene, noise_correlation=wanted).stamps.image
    noise, before = image - scene.model, scene.stamps.image - scene.model
    noise = noise - noise.flatten(1).median(1).values[:, None, None]
    before = before - before.flatten(1).median(1).values[:, None, None]
    dark = scene.model < 0.1
    pairs = dark[:, :, 1:] & dark[:, :, :-1]
    product = (noise[:, :, 1:] * noise[:, :, :-1])[pairs].mean()
    assert float(product / (noise[dark] ** 2).mean()) == pytest.approx(wanted, abs=0.03)
    assert float(noise[dark].std()) == pytest.approx(float(before[dark].std()), rel=0.05)


def test_the_given_gain_is_wrong_where_there_is_one(scene):
    wrong = spoilt(scene, gain_factor=2.0)
    finite = torch.isfinite(scene.stamps.gain)
    assert 0 < finite.sum() < 24
    assert wrong.stamps.gain[finite] == pytest.approx(2.0 * scene.stamps.gain[finite])
    assert torch.isinf(wrong.stamps.gain[~finite]).all()
    assert torch.equal(wrong.stamps.image, scene.stamps.image)


def test_the_sky_rises_by_as_much_as_said(scene):
    rise = spoilt(scene, sky_slope=0.5).stamps.image - scene.stamps.image
    x, y = rise.diff(dim=2).mean((1, 2)) * 63, rise.diff(dim=1).mean((1, 2)) * 63
    assert (x**2 + y**2).sqrt() == pytest.approx(torch.full((24,), 0.5), abs=1e-4)
    assert rise.mean((1, 2)) == pytest.approx(torch.zeros(24), abs=1e-4)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_shipped_studies_load_and_spoil_something(path):
    config = merge_configs(SimulatorConfig, [path])
    config.study.check()
    assert config.study.knobs() or config.data != DataConfig()
    if config.data.structure.share:
        assert config.data.structure.kinds


def test_all_studies_ship():
    assert {p.stem for p in SHIPPED} == {
        "neighbours", "wide_psf", "correlated_noise", "wrong_gain", "sky_gradient", "spiral",
        "bar", "high_index", "drizzled", "bulge_disc", "rings", "dust_lanes", "lopsided",
        "truncated", "clumps",
    }  # fmt: skip


@pytest.mark.parametrize(
    "knobs",
    [{"noise_correlation": 0.8}, {"sky_slope": 150.0}, {"neighbours": -1}, {"psf_width": 0.0}],
)
def test_values_without_meaning_are_named(knobs):
    with pytest.raises(ConfigError, match=rf"study\.{next(iter(knobs))}"):
        StudyConfig(**knobs).check()


def test_every_knob_is_documented():
    for f in fields(StudyConfig):
        assert f"{f.name}: " in (StudyConfig.__doc__ or "")
