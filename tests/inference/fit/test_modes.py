import torch

from deeplegato_pp.inference.fit.modes import ModeFinder
from simulated_galaxies import coordinates_of, simulate


def test_the_likelihood_given_stays_as_it_is():
    w = coordinates_of(magnitude=21.0)
    likelihood = simulate(w[None])
    likelihood.stamps.image[0, 3:6, 3:6] += 40.0
    given = likelihood.stamps.mask.clone()
    noise = torch.randn(8, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    pilot = (w + 1e-3 * noise)[None]
    finder = ModeFinder(
        likelihood,
        likelihood.coordinates,
        pilot,
        torch.zeros(1, 8, dtype=torch.float64),
        starts=1,
        mask_neighbours=True,
    )
    finder.find()
    assert bool(finder.likelihood.stamps.mask[0, 3:6, 3:6].all())
    assert torch.equal(likelihood.stamps.mask, given)
