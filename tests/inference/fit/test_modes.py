import torch

from simulated_galaxies import coordinates_of, finder_near, simulate


def test_the_likelihood_given_stays_as_it_is():
    w = coordinates_of(magnitude=21.0)
    likelihood = simulate(w[None])
    likelihood.stamps.image[0, 3:6, 3:6] += 40.0
    given = likelihood.stamps.mask.clone()
    finder = finder_near(likelihood, w, mask_neighbours=True)
    finder.find()
    assert bool(finder.likelihood.stamps.mask[0, 3:6, 3:6].all())
    assert torch.equal(likelihood.stamps.mask, given)
