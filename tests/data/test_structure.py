"""Structure beyond a Sérsic profile: what is drawn, what stays, and what the truth is."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from deeplegato_pp.calibration.truth import best_fits, best_profiles
from deeplegato_pp.config.schema import ConditionsConfig, DataConfig, StructureConfig
from deeplegato_pp.config.structure import KINDS
from deeplegato_pp.data.datasets import SimulatedGalaxyDataset
from deeplegato_pp.data.drawing import Draw
from deeplegato_pp.data.polar_structure import PlanePixels, PolarGrid, _modulation, at_pixels
from deeplegato_pp.data.sersic_simulator import SersicSimulator, SimulatedScene
from deeplegato_pp.data.structure import convolve, draw_structure
from deeplegato_pp.errors import ConfigError
from deeplegato_pp.scene.prior import PriorBox
from deeplegato_pp.scene.render.wings import Galaxies

SIZE = 48
BOX = PriorBox(
    magnitude=(20.5, 22.0),
    effective_radius=(0.9, 1.3),
    sersic_index=(0.8, 2.0),
    axis_ratio=(0.4, 1.0),
    center_x=(-1.0, 1.0),
    center_y=(-1.0, 1.0),
)
CONDITIONS = ConditionsConfig(psf_fwhm=(2.0, 3.0)).clean()


def as_drawn(stamps, psf, start, box):
    """In place of a search: the smooth galaxy is the truth."""
    return start, torch.ones(len(start), dtype=torch.bool)


def simulated(batch: int = 4, truth=as_drawn, seed: int = 1, **structure: object) -> SimulatedScene:
    simulator = SersicSimulator(
        SIZE, prior=BOX, conditions=CONDITIONS, structure=StructureConfig(**structure), truth=truth
    )
    return simulator.sample_scene(batch, torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def smooth() -> SimulatedScene:
    return simulated()


def test_nothing_is_drawn_where_structure_is_off():
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    one = torch.ones(3)
    galaxies = Galaxies(1e5 * one, 5 * one, one, one, one, 0 * one, 0 * one)
    off = StructureConfig(arms=1.0)
    assert draw_structure(Draw(3, generator, torch.float32), galaxies, 2 * one, off) is None
    assert torch.equal(generator.get_state(), before)


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_moves_light_and_keeps_the_total(smooth, kind):
    scene = simulated(share=1.0, **{kind: 1.0})
    assert scene.structured.all()
    change = scene.model - smooth.model
    total = smooth.model.sum((1, 2))
    assert (change.abs().sum((1, 2)) > 1e-3 * total).all()
    assert change.sum((1, 2)).abs().max() < 0.05 * total.min()
    peak = smooth.model.amax((1, 2))
    assert (scene.model.amin((1, 2)) > -2e-3 * peak).all()


def test_faint_and_unresolved_galaxies_stay_smooth():
    one = torch.ones(3)
    galaxies = Galaxies(
        torch.tensor([1e5, 10.0, 1e5]), torch.tensor([5.0, 5.0, 0.5]), one, one, one, one, one
    )
    draw = Draw(3, torch.Generator().manual_seed(0), torch.float32)
    found = draw_structure(draw, galaxies, 2.0 * one, StructureConfig(share=1.0, rings=1.0))
    assert found is not None
    assert found.rows.tolist() == [0]


def test_structure_without_a_search_for_the_truth_is_refused():
    with pytest.raises(ConfigError, match=r"data\.structure\.share is 0\.5.*best_profiles"):
        SersicSimulator(structure=StructureConfig(share=0.5, arms=1.0))
    structure = StructureConfig(share=0.5, arms=1.0)
    clean = SersicSimulator.from_config(DataConfig(structure=structure), clean=True)
    assert clean.structure.share == 0.0


def test_galaxies_whose_best_profile_is_not_found_stay_smooth(smooth):
    def only_the_first(stamps, psf, start, box):
        return start + 0.1, torch.arange(len(start)) == 0

    scene = simulated(truth=only_the_first, share=1.0, rings=1.0)
    assert scene.structured.tolist() == [True, False, False, False]
    assert torch.equal(scene.model[1:], smooth.model[1:])
    assert torch.equal(scene.params[1:], smooth.params[1:])
    moved = BOX.to_normal(scene.params[:1]) - BOX.to_normal(smooth.params[:1])
    assert moved == pytest.approx(torch.full((1, 7), 0.1), abs=1e-6)


def test_the_best_profile_of_a_smooth_galaxy_is_its_own(smooth):
    w = BOX.to_normal(smooth.params)
    stamps = smooth.stamps
    noiseless = type(stamps)(
        smooth.model, stamps.sigma, torch.zeros_like(stamps.mask), stamps.psf, stamps.gain,
        stamps.sky_sigma, stamps.noise_correlation,
    )  # fmt: skip
    found, inside = best_profiles(noiseless, smooth.psf, w + 0.2, BOX)
    assert inside.all()
    assert (found - w).abs().max() < 0.05
    fitted = best_fits(noiseless, smooth.psf, w, BOX)
    assert fitted.converged.all()
    assert fitted.residual.abs().max() < 0.05


def test_the_steepest_profiles_have_a_best_one():
    steep = replace(BOX, sersic_index=(9.0, 9.99))
    structure = StructureConfig(share=1.0, modulated=1.0)
    simulator = SersicSimulator(
        SIZE, prior=steep, conditions=CONDITIONS, structure=structure, truth=best_profiles
    )
    scene = simulator.sample_scene(16, torch.Generator().manual_seed(0))
    assert float(scene.params[:, 2].max()) > 9.9
    assert bool(steep.contains(scene.params).all())


def test_the_truth_of_a_data_set_is_the_best_profile():
    structure = StructureConfig(share=1.0, bulges=1.0, bulge_fraction=(0.3, 0.4))
    simulator = SersicSimulator(
        SIZE, prior=BOX, conditions=CONDITIONS, structure=structure, truth=best_profiles
    )
    dataset = SimulatedGalaxyDataset(simulator, 2, 1, seed=3)
    scene = dataset.scene(0)
    stamps, w = dataset[0]
    drawn = SersicSimulator(
        SIZE, prior=BOX, conditions=CONDITIONS, structure=structure, truth=as_drawn
    )
    before = SimulatedGalaxyDataset(drawn, 2, 1, seed=3).scene(0)
    assert torch.equal(stamps.image, scene.stamps.image)
    assert torch.equal(w, BOX.to_normal(scene.params))
    moved = scene.structured
    assert moved.any()
    # A bulge with a third of the light makes the profile steeper than the disc's.
    assert ((w - BOX.to_normal(before.params))[moved].abs().amax(1) > 0.1).all()


def test_maps_on_the_polar_grid_reach_the_pixels():
    one = torch.ones(1)
    galaxy = Galaxies(one, 6.0 * one, one, 0.5 * one, 30.0 * one, one, -one)
    pixels = PlanePixels.of(galaxy, 33)
    grid = PolarGrid.like(one)
    wave = (torch.cos(2.0 * grid.azimuth) * torch.sin(grid.log_radius))[None]
    expected = torch.cos(2.0 * torch.atan2(pixels.across, pixels.along)) * pixels.radius.log().sin()
    assert at_pixels(wave, pixels) == pytest.approx(expected, abs=0.02)


def test_random_modulation_has_the_size_and_the_slope_asked_for():
    draw = Draw(200, torch.Generator().manual_seed(2), torch.float64)
    config = StructureConfig(modulation=(0.1, 0.1), modulation_slope=1.0)
    one = torch.ones(200, dtype=torch.float64)
    grid = PolarGrid.like(one)
    field = _modulation(draw, grid, Galaxies(*[one] * 7), config)
    outside = field[:, :, 80:]  # where it has not faded
    assert float(outside.square().mean().sqrt()) == pytest.approx(0.1, rel=0.1)
    power = torch.fft.rfft(outside, dim=1).abs().square().mean((0, 2))
    assert float(power[1] / power[2]) == pytest.approx(math.sqrt(5.0 / 2.0), rel=0.25)


def test_convolution_moves_light_as_the_psf_says():
    image = torch.zeros(1, 9, 9)
    image[0, 4, 4] = 2.0
    psf = torch.zeros(1, 5, 5)
    psf[0, 2, 2], psf[0, 1, 4] = 0.75, 0.25
    found = convolve(image, psf)
    assert float(found[0, 4, 4]) == pytest.approx(1.5)
    assert float(found[0, 3, 6]) == pytest.approx(0.5)
    assert float(found.sum()) == pytest.approx(2.0)
