"""The simulator, its conditions and the streams of the data sets."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch.utils.data import DataLoader

from deeplegato_pp.config.schema import ConditionsConfig, DataConfig
from deeplegato_pp.data.conditions import (
    draw_background,
    draw_mask,
    draw_neighbours,
    draw_psf,
    draw_saturation,
    draw_sky,
    estimate_total_noise,
)
from deeplegato_pp.data.datasets import EpochSampler, SimulatedGalaxyDataset, stream_generator
from deeplegato_pp.data.drawing import Draw
from deeplegato_pp.data.sersic_simulator import SersicSimulator, SimulatedScene
from deeplegato_pp.errors import InputError, RangeError, ShapeError
from deeplegato_pp.scene.correlated_noise import block_scatter, lags_of
from deeplegato_pp.scene.noise import log_likelihood
from deeplegato_pp.scene.stamps import PSF_GRID, StampBatch

SIZE = 48


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw(batch: int = 32, seed: int = 0) -> Draw:
    return Draw(batch, generator(seed), torch.float32)


def only(**changes: object) -> ConditionsConfig:
    """Clean conditions with some clutter switched on."""
    return dataclasses.replace(ConditionsConfig().clean(), **changes)


def scene(
    conditions: ConditionsConfig | None = None, batch: int = 32, seed: int = 0
) -> SimulatedScene:
    return SersicSimulator(SIZE, conditions=conditions).sample_scene(batch, generator(seed))


def equal(one: StampBatch, two: StampBatch) -> bool:
    pairs = [(getattr(one, f.name), getattr(two, f.name)) for f in dataclasses.fields(StampBatch)]
    return all(a is b if a is None or b is None else torch.equal(a, b) for a, b in pairs)


def test_sample_has_the_promised_shapes_units_and_noise():
    sim = SersicSimulator(SIZE)
    params, images, noise, psf = sim.sample(64, generator())
    assert params.shape == (64, 7)
    assert params.dtype == torch.float64
    assert images.shape == noise.shape == (64, SIZE, SIZE)
    assert psf.shape == (64, PSF_GRID, PSF_GRID)
    assert bool(sim.prior.contains(params).all())
    model = sim.render(params.float(), psf)
    chi = (images - model) / noise
    assert abs(float(chi.mean())) < 0.02
    assert float(chi.var()) == pytest.approx(1.0, abs=0.02)
    assert float(noise.min()) >= 1.0


def test_sample_without_a_generator_differs_each_time():
    sim = SersicSimulator(16)
    assert not torch.equal(sim.sample(2)[1], sim.sample(2)[1])


@pytest.mark.parametrize("zero_point", [22.5, 30.5])
@pytest.mark.parametrize("pixel_scale", [0.03, 0.25])
def test_render_translates_magnitudes_and_arcseconds(zero_point, pixel_scale):
    sim = SersicSimulator(64, pixel_scale, zero_point)
    params = torch.tensor([[20.0, 3 * pixel_scale, 1.0, 0.8, 30.0, 0.0, 0.0]]).double()
    image = sim.render(params, torch.ones(1, 1))
    assert image.dtype == torch.float64
    assert float(image.sum()) == pytest.approx(10 ** (0.4 * (zero_point - 20)), rel=1e-4)


def test_render_refuses_other_shapes():
    with pytest.raises(ShapeError, match=r"params has shape \(B, 7\), got \(7,\)"):
        SersicSimulator(16).render(torch.zeros(7), torch.ones(1, 1))


def test_scenes_are_in_detector_units_and_finite():
    made = scene(batch=96)
    stamps = made.stamps
    for field in dataclasses.fields(StampBatch):
        value = getattr(stamps, field.name)
        assert value is None or not bool(value.isnan().any()), field.name
    assert bool(stamps.image.isfinite().all())
    assert bool((stamps.sigma > 0).all())
    median = torch.where(stamps.mask, torch.nan, stamps.sigma).flatten(1).nanmedian(1).values
    assert torch.allclose(median, torch.ones(96), atol=1e-5)
    assert bool((stamps.image[stamps.mask] == 0).all())
    assert bool((stamps.sigma[stamps.mask] == 1).all())
    assert stamps.psf.shape == (96, PSF_GRID, PSF_GRID)
    assert bool((made.snr > 0).all())
    assert 0.2 < float(stamps.gain.isinf().float().mean()) < 0.8


def test_true_parameters_explain_the_image():
    """In the stamp's own units the true model leaves white noise of the stated variance."""
    made = scene(only(fixed_variance=0.0), batch=64)
    s = made.stamps
    variance = s.sigma**2 + made.model.clamp_min(0) / s.gain[:, None, None]
    residual = s.image - made.model
    residual = residual - (residual / variance).sum((1, 2), True) / (1 / variance).sum((1, 2), True)
    chi2 = (residual**2 / variance).mean((1, 2))
    assert float(chi2.mean()) == pytest.approx(1.0, abs=0.02)


def test_params_and_model_agree_where_noise_is_uneven():
    made = scene(only(uneven_noise=1.0), batch=48)
    flux = 10 ** (-0.4 * (made.params[:, 0] - 30.5))
    # Small enough to lie in the stamp, and not on the box's edge, where magnitudes are clamped.
    small = (made.params[:, 1] < 1.0) & (made.params[:, 2] < 1.5) & (made.params[:, 0] > 15.4)
    assert bool(small.any())
    ratio = made.model.sum((1, 2)).double() / flux
    assert (ratio[small] - 1).abs().max() < 0.02


def test_the_truth_is_likelier_than_another_flux():
    made = scene(only(fixed_variance=0.5), batch=64)
    s = made.stamps
    rest = (s.sigma, s.mask, s.gain, s.sky_sigma)
    bright = made.snr > 30
    truth = log_likelihood(s.image, made.model, *rest)
    other = log_likelihood(s.image, 1.3 * made.model, *rest)
    assert bool((truth > other)[bright].all())


def test_clean_scenes_have_no_masks_and_flat_backgrounds():
    made = scene(ConditionsConfig().clean())
    assert not bool(made.stamps.mask.any())
    flat = made.stamps.sigma.flatten(1)
    assert (flat.amax(1) - flat.amin(1)).max() < 1e-6


def test_masks_spare_the_core():
    conditions = only(neighbours=1.0, max_neighbours=3, masked_regions=1.0, neighbours_masked=1.0)
    masks = scene(conditions, batch=128).stamps.mask
    assert bool(masks.any())
    middle = slice(SIZE // 2 - 2, SIZE // 2 + 2)
    assert not bool(masks[:, middle, middle].any())


def test_partial_stamps_keep_the_smallest_side():
    mask = draw_mask(draw(200), 64, only(small_stamps=1.0, smallest_stamp=32))
    rows, columns = (~mask).any(2).sum(1), (~mask).any(1).sum(1)
    assert int(rows.min()) >= 32
    assert int(columns.min()) >= 32
    assert int(rows.max()) <= 64
    assert bool((rows < 60).any())


def test_trails_run_along_columns_beside_the_core():
    mask = draw_mask(draw(300), SIZE, only(bleed_trails=1.0))
    c = SIZE // 2
    assert not mask[:, c - 1 : c + 1, c - 1 : c + 1].any()
    heights = mask.sum(1)
    assert ((heights == heights.amax(1, keepdim=True)) | (heights == 0)).all()
    assert float(mask.any(1).float().mean()) < 8.5 / SIZE


def test_saturation_masks_the_brightest_pixels_and_nothing_else():
    made = scene(only(saturated=1.0), batch=64)
    mask, model = made.stamps.mask, made.model
    saturated = mask.flatten(1).any(1)
    assert bool(saturated.any())
    faint = model.flatten(1).amax(1) < 40.0
    assert bool(faint.any())
    assert not bool((saturated & faint).any())
    hidden = torch.where(mask, model, torch.inf).flatten(1).amin(1)
    shown = torch.where(mask, -torch.inf, model).flatten(1).amax(1)
    noise = 8.0 * (1.0 + shown).sqrt()  # at gain 1 or more
    assert bool((hidden > shown - noise)[saturated].all())


def test_saturation_leaves_something_to_be_seen():
    image = torch.zeros(8, SIZE, SIZE)
    image[:4] = 1e4  # full everywhere
    image[4:, :2] = 1e4
    mask = torch.zeros(8, SIZE, SIZE, dtype=torch.bool)
    mask[6:, 3:] = True  # a third of what is seen is not full
    full = draw_saturation(draw(8), image, mask, only(saturated=1.0))
    assert not bool(full[:4].any())
    assert bool((full[4:] == (image[4:] > 0)).all())


def test_the_sky_has_an_offset_and_where_asked_a_gradient():
    tau = torch.full((4000,), 0.05)
    flat = draw_sky(draw(4000), tau, SIZE, only())
    torch.testing.assert_close(flat, flat[:, :1, :1].expand_as(flat))
    steep = draw_sky(draw(4000), tau, SIZE, only(sky_gradient=1.0))
    rise = (steep[:, :, -1] - steep[:, :, 0]).mean(1) / 2
    assert float(rise.std()) == pytest.approx(0.05 * (SIZE - 1) / SIZE, rel=0.05)
    assert float(steep.mean((1, 2)).std()) == pytest.approx(0.05, rel=0.05)


def test_bad_pixels_are_few():
    share = draw_mask(draw(200), 64, only(bad_pixels=1.0)).float().mean((1, 2))
    assert bool((share > 0).any())
    assert float(share.max()) < 0.06


def test_no_neighbours_no_light():
    d = draw()
    config = only()
    found = draw_neighbours(d, draw_psf(d, config), SIZE, config)
    assert not bool(found.light.any())
    assert not bool(found.mask.any())
    assert bool(found.nearest.isinf().all())


def test_neighbours_add_light_and_masks_cover_where_it_is_bright():
    d = draw(64)
    config = only(neighbours=1.0, neighbours_masked=1.0)
    found = draw_neighbours(d, draw_psf(d, config), SIZE, config)
    light, mask = found.light, found.mask
    assert bool((light.flatten(1).amax(1) > 0).float().mean() > 0.9)
    assert bool((light >= 0).all())
    assert not bool((mask & (light < 0.2)).any())
    assert bool(mask[light > 15.0 * config.max_neighbours].all())


def test_the_nearest_neighbour_is_where_its_light_peaks():
    d = draw(32)
    config = only(neighbours=1.0, max_neighbours=1)
    found = draw_neighbours(d, draw_psf(d, config), SIZE, config)
    axis = torch.arange(SIZE) - (SIZE - 1) / 2
    distance = (axis**2 + axis[:, None] ** 2).sqrt()
    peak = found.light.flatten(1).argmax(1)
    on_stamp = (found.nearest < SIZE / 2 - 4) & (found.light.flatten(1).amax(1) > 0)
    assert int(on_stamp.sum()) >= 10
    assert distance.flatten()[peak][on_stamp] == pytest.approx(found.nearest[on_stamp], abs=2.0)


def test_correlated_noise_is_drawn_and_told():
    plain = scene(only())
    assert bool((plain.stamps.noise_correlation == 1.0).all())
    found = scene(only(correlated_noise=1.0, noise_correlation=(2.0, 6.0)), batch=64)
    c, sigma = found.stamps.noise_correlation, found.stamps.sigma
    assert 2.0 <= float(c.min()) < 2.5
    assert 5.0 < float(c.max()) <= 6.0
    # Blocks at the stamp's edge, far from the galaxy, scatter as the correlation says.
    noise = ((found.stamps.image - found.model) / sigma)[:, :8]
    blocks = noise.unfold(1, 8, 8).unfold(2, 8, 8).sum((-2, -1)) / 8.0
    scatter = 1.4826 * (blocks - blocks.median()).abs().median()
    expected = float(block_scatter(lags_of(c), 8).mean())
    assert float(scatter) == pytest.approx(expected, rel=0.15)


def test_a_share_of_the_noise_is_correlated_and_the_rest_as_if_none_were():
    plain, some = (scene(only(correlated_noise=share), batch=200) for share in (0.0, 0.3))
    correlated = some.stamps.noise_correlation > 1.0
    assert float(correlated.float().mean()) == pytest.approx(0.3, abs=0.1)
    assert bool((some.stamps.noise_correlation[~correlated] == 1.0).all())
    noise = some.stamps.image - some.model
    neighbours = (noise[:, :8, 1:] * noise[:, :8, :-1]).mean((1, 2))
    assert float(neighbours[correlated].median()) > 0.1
    assert abs(float(neighbours[~correlated].median())) < 0.05
    assert bool((plain.stamps.noise_correlation == 1.0).all())


def test_backgrounds_vary_smoothly_within_their_bounds():
    background = draw_background(draw(100), SIZE, only(uneven_noise=1.0))
    assert float(background.max()) <= math.exp(0.35)
    assert float(background.min()) >= math.exp(-0.35)
    assert float(background.diff(dim=1).abs().max()) < 0.1
    flat = draw_background(draw(10), SIZE, only())
    assert bool((flat == 1).all())


def test_estimated_noise_maps_come_from_the_noisy_image():
    noisy = torch.zeros(1, 9, 9)
    noisy[0, 4, 4] = 16.0
    noise = estimate_total_noise(noisy, torch.full((1, 9, 9), 2.0), torch.ones(1))
    peak = 4.0 + 16.0 * (6 / 16) ** 2
    assert float(noise[0, 4, 4] ** 2) == pytest.approx(peak)
    assert float(noise[0, 0, 0]) == pytest.approx(2.0)


def test_drawn_numbers_lie_in_their_ranges():
    config = ConditionsConfig(psf_fwhm=(2.0, 3.0), gain=(10.0, 20.0), sky_sigma=(0.01, 0.02))
    psf = draw_psf(draw(200), config)
    assert 2.0 <= float(psf.fwhm.min()) <= float(psf.fwhm.max()) <= 3.0
    assert (psf.fine.sum((1, 2)) - 1).abs().max() < 1e-5
    assert (psf.native.sum((1, 2)) - 1).abs().max() < 1e-5
    clean = dataclasses.replace(config, fixed_variance=0.0).clean()
    stamps = scene(clean, batch=64).stamps
    assert 10.0 <= float(stamps.gain.min()) <= float(stamps.gain.max()) <= 20.0
    assert 0.01 <= float(stamps.sky_sigma.min()) <= float(stamps.sky_sigma.max()) <= 0.02


def test_from_config_takes_the_data_section():
    config = DataConfig(image_size=32, priors={"sersic_index": [0.5, 2.0]})
    sim = SersicSimulator.from_config(config, clean=True)
    assert sim.prior.sersic_index == (0.5, 2.0)
    assert sim.conditions.neighbours == 0.0
    with pytest.raises(RangeError, match="Unknown parameters"):
        SersicSimulator.from_config(DataConfig(priors={"colour": [0.0, 1.0]}))


def dataset(seed: int = 3, rank: int = 0, batches: int = 4) -> SimulatedGalaxyDataset:
    return SimulatedGalaxyDataset(SersicSimulator(24), 8, batches, seed=seed, rank=rank)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.filterwarnings("ignore:This DataLoader will create 2 worker processes")
def test_the_stream_is_the_same_whatever_the_number_of_workers():
    alone = list(DataLoader(dataset(), batch_size=None, num_workers=0))
    helped = list(
        DataLoader(dataset(), batch_size=None, num_workers=2, multiprocessing_context="fork")
    )
    assert len(alone) == len(helped) == 4
    for (stamps, w), (other, other_w) in zip(alone, helped, strict=True):
        assert equal(stamps, other)
        assert torch.equal(w, other_w)


def test_steps_seeds_and_ranks_are_independent_streams():
    base = dataset()[0][0].image
    assert torch.equal(base, dataset()[0][0].image)
    for other in (dataset()[1], dataset(seed=4)[0], dataset(rank=1)[0]):
        assert not torch.equal(base, other[0].image)
    states = {
        int(torch.randint(2**62, (1,), generator=stream_generator(s, t, r)))
        for s in range(4)
        for t in range(4)
        for r in range(4)
    }
    assert len(states) == 64


def test_items_are_stamps_and_coordinates_of_the_truth():
    data = dataset()
    stamps, w = data[2]
    made = data.scene(2)
    assert len(stamps) == 8
    assert w.dtype == torch.float64
    assert torch.equal(w, data.simulator.prior.to_normal(made.params))


def test_a_stream_ends():
    with pytest.raises(IndexError, match="Step 4 of a stream of 4"):
        dataset()[4]
    assert len(dataset()) == 4


def test_epochs_walk_on_through_the_stream():
    taken = 0
    sampler = EpochSampler(3, lambda: taken)
    assert list(sampler) == [0, 1, 2]
    taken = 6
    assert list(sampler) == [6, 7, 8]
    assert len(sampler) == 3


def test_coordinates_of_many_scenes_look_standard_normal():
    """Clean scenes leave the prior what it is."""
    sim = SersicSimulator(16, conditions=ConditionsConfig().clean())
    w = sim.prior.to_normal(sim.sample_scene(1500, generator(1)).params)
    assert w.mean(0).abs().max() < 0.12
    assert (w.std(0) - 1).abs().max() < 0.08


def test_generate_gives_the_images_and_parameters_of_sample():
    sim = SersicSimulator(24)
    images, params = sim.generate(3, seed=5)
    expected = sim.sample(3, torch.Generator().manual_seed(5))
    assert torch.equal(images[:, 0], expected[1])
    assert torch.equal(params, expected[0])
    assert not torch.equal(images, sim.generate(3)[0])


def test_a_configuration_stands_for_its_simulator():
    given = {"data": {"image_size": 24, "conditions": {"neighbours": 0.0, "smallest_stamp": 16}}}
    made = SimulatedGalaxyDataset(given, 2, 2)
    assert made.simulator.image_size == 24
    assert made.simulator.conditions.neighbours == 0.0
    default = SimulatedGalaxyDataset()
    assert (default.batch_size, len(default), default.simulator.image_size) == (64, 100, 128)
    seen = [(stamps.image.shape, w.shape) for stamps, w in DataLoader(made, batch_size=None)]
    assert seen == [((2, 24, 24), (2, 7))] * 2


def test_batches_are_not_batched_again():
    with pytest.raises(InputError, match=r"SimulatedGalaxyDataset .*batch_size=None"):
        next(iter(DataLoader(dataset(), batch_size=2)))
    for sizes, name in (((-1, 2), "batch_size"), ((2, 0), "num_batches")):
        with pytest.raises(RangeError, match=f"{name} must be a whole number >= 1"):
            SimulatedGalaxyDataset(SersicSimulator(24), *sizes)


def test_images_are_made_with_psfs_as_much_off_as_is_told():
    known, off = scene(only()), scene(only(psf_error=0.1))
    assert known.psf.error is None
    assert off.psf.error.tolist() == [pytest.approx(0.1)] * len(off.stamps)
    assert off.stamps.psf_error is None  # no network is told
    torch.testing.assert_close(known.psf.fine, off.psf.fine)  # those that are told
    draws = draw(400)
    psf = dataclasses.replace(
        draw_psf(draws, only(psf_fwhm=(3.0, 3.0), aberrated=0.0, psf_offset=0.0)),
        error=torch.full((400,), 0.1),
    )
    made = psf.mistaken(draws)
    torch.testing.assert_close(made.fwhm, psf.fwhm)
    # Peaks of profiles of s times the width fall as s^-2.
    factor = (psf.fine[:, 43, 43] / made.fine[:, 43, 43]).sqrt()
    assert float(factor.std()) == pytest.approx(0.1, abs=0.015)
    assert float(factor.mean()) == pytest.approx(1.0, abs=0.02)
    assert psf.widened(1.0).fine.sub(psf.fine).abs().max() < 1e-5


def test_errors_of_the_psf_are_told_where_they_are_an_input():
    stamps = scene(only(psf_error=0.1, psf_error_input=True)).stamps
    assert stamps.psf_error.shape == (len(stamps),)
    assert float(stamps.psf_error.min()) >= 0.0
    assert 0.0 < float(stamps.psf_error.max()) < 0.1
    assert stamps[:1].psf_error.shape == (1,)
    silent = scene(only()).stamps
    joined = StampBatch.concatenate([silent, stamps])
    assert joined.psf_error[: len(silent)].tolist() == [0.0] * len(silent)
    torch.testing.assert_close(joined.psf_error[len(silent) :], stamps.psf_error)
    assert StampBatch.concatenate([silent, silent]).psf_error is None
