import pytest
import torch

from deeplegato_pp.errors import RangeError
from deeplegato_pp.scene.components import (
    Coordinates,
    PointSourceCoordinates,
    SersicCoordinates,
    flux_of,
)
from simulated_galaxies import BOX, every_coordinate_system


def check_coordinates(coordinates: Coordinates) -> None:
    """Right number of columns, a normalised prior, and a round trip through w."""
    u = torch.randn(5, coordinates.dim, dtype=torch.float64)
    (columns,) = coordinates.profiles(u)
    assert len(columns) == 7
    assert all(c.shape == (5,) and bool(torch.isfinite(c).all()) for c in columns)
    normal = torch.distributions.Normal(0.0, 1.0)
    torch.testing.assert_close(coordinates.log_prior(u), normal.log_prob(u).sum(-1))


def test_all_coordinates_keep_the_contract():
    for coordinates in [*every_coordinate_system(), PointSourceCoordinates(BOX)]:
        check_coordinates(coordinates)


def test_fixed_parameters_stay_fixed_and_the_others_round_trip():
    coordinates = SersicCoordinates(BOX, {"sersic_index": 4.0, "center_x": 0.0})
    assert coordinates.dim == 5
    u = torch.randn(4, 5, dtype=torch.float64)
    w = coordinates.embed(u)
    torch.testing.assert_close(coordinates.project(w), u)
    physical = BOX.to_physical(w)
    torch.testing.assert_close(physical[:, 2], torch.full((4,), 4.0, dtype=torch.float64))
    torch.testing.assert_close(physical[:, 5], torch.zeros(4, dtype=torch.float64))


def test_detector_units_are_those_of_the_reference_instrument():
    flux, radius, *_ = SersicCoordinates(BOX).profiles(torch.zeros(1, 7, dtype=torch.float64))[0]
    assert float(flux) == pytest.approx(10 ** (0.4 * (30.5 - 21.5)))
    assert float(radius) == pytest.approx(4.0)
    assert float(flux_of(torch.tensor(30.5))) == pytest.approx(1.0)


@pytest.mark.parametrize(
    "fixed", [{"axis_ratio": 0.5}, {"position_angle": 3.0}, {"sersic_index": 50.0}, {"n": 4.0}]
)
def test_what_cannot_be_fixed_is_refused(fixed):
    with pytest.raises(RangeError):
        SersicCoordinates(BOX, fixed)


def test_round_galaxies_need_no_angle():
    coordinates = SersicCoordinates(BOX, {"axis_ratio": 1.0})
    w = coordinates.embed(torch.zeros(1, coordinates.dim, dtype=torch.float64))
    assert float(BOX.to_physical(w)[0, 3]) == pytest.approx(1.0)
