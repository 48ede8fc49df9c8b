import pytest

from deeplegato_pp.cli.refining import refining_from
from deeplegato_pp.errors import ConfigError, InputError
from deeplegato_pp.scene.noise import MODEL_ERROR


def test_options_reach_the_refining_and_have_its_defaults():
    own = refining_from(True, "exact", "all", None, None, None, "honest")
    assert (own.widths, own.model_error, own.star_odds) == ("honest", MODEL_ERROR, 1.0)
    old = refining_from(True, "laplace", "auto", ["sersic_index=4"], 2.0, 0.0, "noise")
    assert (old.widths, old.model_error, old.star_odds) == ("noise", 0.0, 2.0)
    assert (old.method, old.rule, old.fixed) == ("laplace", "auto", {"sersic_index": 4.0})


def test_the_bare_network_heeds_widths_and_no_model_error():
    assert refining_from(False, "exact", "all", None, None, None, "honest") is None
    with pytest.raises(ConfigError, match="--model-error belongs to the exact posterior"):
        refining_from(False, "exact", "all", None, None, 0.1, "honest")


def test_unknown_widths_are_refused():
    with pytest.raises(InputError, match="widths must be one of honest, noise, got 'wide'"):
        refining_from(True, "exact", "all", None, None, None, "wide")
