"""Inference: posteriors of galaxies from observations, by network and exact likelihood."""

from typing import TYPE_CHECKING

from .._lazy import lazy_exports

if TYPE_CHECKING:
    from .analyzer import UncertaintyAnalyzer as UncertaintyAnalyzer
    from .posterior import Posterior as Posterior
    from .predictor import Predictor as Predictor
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {
            "Posterior": ".posterior",
            "Predictor": ".predictor",
            "UncertaintyAnalyzer": ".analyzer",
        },
        moved={
            "export_onnx": "deeplegato_pp.export",
            "onnx_stamp": "deeplegato_pp.export",
        },
    )
