import torch

from deeplegato_pp.inference.fit.neighbours import find_neighbours
from simulated_galaxies import coordinates_of, make_psf, simulate


def found(likelihood, w, model_sigma=0.0):
    model = likelihood.render(0, w[None], torch.float64)[0]
    return find_neighbours(likelihood, 0, likelihood.stamps.mask[0], model, model_sigma, w)


def test_pure_noise_has_no_neighbours():
    w = coordinates_of()
    for seed in range(5):
        assert not bool(found(simulate(w[None], seed=seed), w).any())


def test_a_neighbour_is_found_and_the_galaxys_core_is_not():
    w = coordinates_of()
    likelihood = simulate(w[None])
    likelihood.stamps.image[0, :13, :13] += 2000.0 * make_psf(size=13)
    likelihood.stamps.image[0, 10:13, 11:14] += 50.0  # structure at the centre
    pixels = found(likelihood, w)
    assert bool(pixels[6, 6])
    assert not bool(pixels[10:14, 10:14].any())
    assert not bool(found(likelihood, w, model_sigma=1e3).any())


def test_a_single_pixel_and_a_wrong_model_are_left_alone():
    w = coordinates_of()
    likelihood = simulate(w[None])
    likelihood.stamps.image[0, 2, 2] += 30.0
    assert not bool(found(likelihood, w).any())
    likelihood.stamps.image[0] += 30.0
    assert not bool(found(likelihood, w).any())
