"""DeepLeGATo++: posterior inference of galaxies' Sérsic parameters from images.

The names below are imported on first use, which keeps ``import deeplegato_pp`` fast.
"""

from typing import TYPE_CHECKING

from ._lazy import lazy_exports
from ._version import __version__ as __version__

if TYPE_CHECKING:
    from .data import SersicSimulator as SersicSimulator
    from .data import compute_bn as compute_bn
    from .flags import Flag as Flag
    from .inference import Posterior as Posterior
    from .inference import Predictor as Predictor
    from .models import DeepLeGAToPP as DeepLeGAToPP
    from .observation import MultiBandObservation as MultiBandObservation
    from .observation import Observation as Observation
    from .scene import PARAMETERS as PARAMETERS
    from .scene import SersicParams as SersicParams
    from .training import train as train
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {
            "DeepLeGAToPP": ".models",
            "Flag": ".flags",
            "MultiBandObservation": ".observation",
            "Observation": ".observation",
            "PARAMETERS": ".scene",
            "Posterior": ".inference",
            "Predictor": ".inference",
            "SersicParams": ".scene",
            "SersicSimulator": ".data",
            "compute_bn": ".data",
            "train": ".training",
        },
    )
