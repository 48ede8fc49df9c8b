"""What all tests share: the guard over torch's globals, and shape checks on request."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--check-shapes",
        action="store_true",
        help="check shapes and types at every call of the package; tests that pass wrong ones on "
        "purpose then meet that check instead of the package's own",
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--check-shapes"):
        from jaxtyping import install_import_hook

        install_import_hook("deeplegato_pp", "shape_checks.checked")


def torch_globals() -> dict[str, object]:
    """The settings of torch that a library must leave as it finds them."""
    return {
        "default dtype": torch.get_default_dtype(),
        "default device": torch.get_default_device(),
        "number of threads": torch.get_num_threads(),
        "grad mode": torch.is_grad_enabled(),
        "inference mode": torch.is_inference_mode_enabled(),
        "anomaly detection": torch.is_anomaly_enabled(),
        "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "float32 matmul precision": torch.get_float32_matmul_precision(),
        "cudnn.benchmark": torch.backends.cudnn.benchmark,
        "cudnn.deterministic": torch.backends.cudnn.deterministic,
        "validation of distributions": torch.distributions.Distribution._validate_args,
    }


def restore_torch_globals(settings: dict[str, object]) -> None:
    """Puts the settings back, so that one culprit does not fail every test after it."""
    torch.set_default_dtype(settings["default dtype"])
    torch.set_default_device(settings["default device"])
    torch.set_num_threads(settings["number of threads"])
    torch.set_grad_enabled(settings["grad mode"])
    torch.autograd.set_detect_anomaly(settings["anomaly detection"])
    torch.use_deterministic_algorithms(settings["deterministic algorithms"])
    torch.set_float32_matmul_precision(settings["float32 matmul precision"])
    torch.backends.cudnn.benchmark = settings["cudnn.benchmark"]
    torch.backends.cudnn.deterministic = settings["cudnn.deterministic"]
    torch.distributions.Distribution.set_default_validate_args(
        settings["validation of distributions"]
    )


def changed_torch_globals(before: dict[str, object]) -> list[str]:
    """Describes the settings that are no longer what they were."""
    return [
        f"{name} was {before[name]}, is {value}"
        for name, value in torch_globals().items()
        if value != before[name]
    ]


@pytest.fixture
def one_thread() -> Iterator[None]:
    """One thread, as in a loader's worker processes: both then round sums alike."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _torch_globals_stay() -> Iterator[None]:
    """Fails a test that leaves one of torch's globals changed."""
    before = torch_globals()
    yield
    changed = changed_torch_globals(before)
    restore_torch_globals(before)
    assert not changed, "the test changed globals of torch: " + "; ".join(changed)
