"""Posteriors of galaxies: weighted draws, measurements, summaries, tables and figures."""

from typing import TYPE_CHECKING

from ..._lazy import lazy_exports

if TYPE_CHECKING:
    from .measurement import Measurement as Measurement
    from .posterior import Posterior as Posterior
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {
            "Measurement": ".measurement",
            "Posterior": ".posterior",
        },
    )
