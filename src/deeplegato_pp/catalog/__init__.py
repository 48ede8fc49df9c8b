"""Catalogues: tables of posteriors from mosaics and lists of sources."""

from typing import TYPE_CHECKING

from .._lazy import lazy_exports

if TYPE_CHECKING:
    from .library import CatalogueRows as CatalogueRows
    from .library import catalog as catalog
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {
            "CatalogueRows": ".library",
            "catalog": ".library",
        },
    )
