"""Network: a Swin V2 backbone, a PSF encoder and a normalizing flow."""

from typing import TYPE_CHECKING

from .._lazy import lazy_exports

if TYPE_CHECKING:
    from .deeplegato_pp import DeepLeGAToPP as DeepLeGAToPP
    from .npe_head import NPEHead as NPEHead
    from .swin_backbone import SwinBackbone as SwinBackbone
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {
            "DeepLeGAToPP": ".deeplegato_pp",
            "NPEHead": ".npe_head",
            "SwinBackbone": ".swin_backbone",
        },
    )
