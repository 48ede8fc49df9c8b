"""Observations: images with noise, mask and PSF, and the stamps prepared from them."""

from typing import TYPE_CHECKING

from .._lazy import lazy_exports

if TYPE_CHECKING:
    from .bands import MultiBandObservation as MultiBandObservation
    from .correlation import NoiseCorrelation as NoiseCorrelation
    from .observation import Observation as Observation
    from .preparation import prepare as prepare
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {
            "MultiBandObservation": ".bands",
            "NoiseCorrelation": ".correlation",
            "Observation": ".observation",
            "prepare": ".preparation",
        },
    )
