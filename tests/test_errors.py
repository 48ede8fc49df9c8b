import builtins
import pickle

import pytest

from deeplegato_pp import errors

BUILTINS = {
    "InputError": "ValueError",
    "ShapeError": "ValueError",
    "RangeError": "ValueError",
    "FormatError": "ValueError",
    "ConfigError": "ValueError",
    "ModelNotFoundError": "FileNotFoundError",
    "NumericalError": "ArithmeticError",
}


@pytest.mark.parametrize(("name", "builtin"), BUILTINS.items())
def test_each_error_is_the_package_s_and_a_builtin(name, builtin):
    error = getattr(errors, name)
    assert issubclass(error, errors.DeepLegatoError)
    assert issubclass(error, getattr(builtins, builtin))


def test_input_errors_form_one_family():
    for error in (errors.ShapeError, errors.RangeError, errors.FormatError):
        assert issubclass(error, errors.InputError)
    assert not issubclass(errors.ConfigError, errors.InputError)


@pytest.mark.parametrize("name", BUILTINS)
def test_messages_survive_worker_processes(name):
    error = pickle.loads(pickle.dumps(getattr(errors, name)("what, got, expected, remedy")))
    assert str(error) == "what, got, expected, remedy"
