import pytest
import torch

from deeplegato_pp.errors import InputError, RangeError
from deeplegato_pp.scene.components import SersicCoordinates
from deeplegato_pp.scene.psf_width import PsfWidths
from simulated_galaxies import BOX, coordinates_of, simulate


@pytest.fixture
def likelihood():
    """Two galaxies whose PSFs are known to 2 %, with the templates in force."""
    w = torch.stack([coordinates_of(), coordinates_of(magnitude=21.0)])
    found = simulate(w).replace(psf_error=0.02)
    found.freeze(torch.arange(2), w)
    return found


def test_the_template_shrinks_with_the_share(likelihood):
    whole = likelihood.templates(torch.arange(2)).images[:, 1].clone()
    likelihood.psf_widths.share[1] = 0.25
    part = likelihood.templates(torch.arange(2)).images[:, 1]
    torch.testing.assert_close(part[0], whole[0])
    torch.testing.assert_close(part[1], 0.25 * whole[1])
    assert likelihood.psf_error.tolist() == [0.02, 0.02]


def test_amplitudes_scatter_by_the_whole_error(likelihood):
    likelihood.psf_widths.share[1] = 0.25
    assert likelihood.psf_widths.amplitude_variance(0, 2).tolist() == [1.0, 1.0]
    assert likelihood.psf_widths.amplitude_variance(1, 2).tolist() == [1.0, 16.0]
    assert likelihood.psf_widths.amplitude_variance(1, 1).tolist() == [1.0]


def test_copies_keep_the_share_and_other_hypotheses_do_not(likelihood):
    likelihood.psf_widths.share[1] = 0.25
    assert likelihood.select([1]).psf_widths.share.tolist() == [0.25]
    assert likelihood.replace(model_error=0.05).psf_widths.share.tolist() == [1.0, 0.25]
    assert likelihood.replace(psf_error=0.03).psf_widths.share.tolist() == [1.0, 1.0]
    torch.testing.assert_close(
        likelihood.replace(psf_error=0.03).psf_widths.change(0),
        1.5 * likelihood.psf_widths.change(0),
    )
    other = likelihood.under(SersicCoordinates(BOX, {"sersic_index": 1.0}))
    assert other.psf_widths.share.tolist() == [1.0, 1.0]
    assert likelihood.psf_widths.share.tolist() == [1.0, 0.25]


def test_a_copy_shares_nothing(likelihood):
    copy = likelihood.select([1, 0])
    copy.psf_widths.share[0] = 0.5
    copy.psf_widths.slope.zero_()
    assert likelihood.psf_widths.share.tolist() == [1.0, 1.0]
    assert float(likelihood.psf_widths.slope.abs().sum()) > 0
    torch.testing.assert_close(copy.frozen_at(0), likelihood.frozen_at(1))


def test_an_error_of_unknown_effect_is_refused():
    likelihood = simulate(coordinates_of()[None].repeat(2, 1)).replace(psf_error=0.02)
    likelihood.freeze(torch.tensor([0]), coordinates_of()[None])
    rows = torch.arange(2)
    with pytest.raises(InputError, match="galaxy 1 has an error of unknown effect"):
        likelihood.residual(rows, likelihood.stamps.image)


def test_known_psfs_have_no_template():
    widths = PsfWidths([0.0, 0.0], torch.zeros(2, 3, 3))
    assert widths.change(0) is None
    assert widths.unknown(torch.arange(2)) == []


@pytest.mark.parametrize("error", [-0.1, 0.5, float("nan")])
def test_errors_out_of_range_are_refused(error):
    with pytest.raises(RangeError, match="psf_error"):
        PsfWidths([error], torch.zeros(1, 3, 3))
