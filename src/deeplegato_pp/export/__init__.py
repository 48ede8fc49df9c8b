"""Export of networks, and of fits to GALFIT's formats."""

from typing import TYPE_CHECKING

from .._lazy import lazy_exports

if TYPE_CHECKING:
    from .onnx import export_onnx as export_onnx
    from .onnx import onnx_stamp as onnx_stamp
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {
            "export_onnx": ".onnx",
            "onnx_stamp": ".onnx",
        },
    )
