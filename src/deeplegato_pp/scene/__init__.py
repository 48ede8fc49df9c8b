"""The forward model: parameters, priors, rendered images, noise and likelihood."""

from typing import TYPE_CHECKING

from .._lazy import lazy_exports

if TYPE_CHECKING:
    from .parameters import PARAMETERS as PARAMETERS
    from .parameters import SersicParams as SersicParams
    from .prior import PriorBox as PriorBox
    from .stamps import StampBatch as StampBatch
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {
            "PARAMETERS": ".parameters",
            "PriorBox": ".prior",
            "SersicParams": ".parameters",
            "StampBatch": ".stamps",
        },
    )
