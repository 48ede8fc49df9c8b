"""Simulator: Sérsic profiles and their images, PSFs, noise, and data sets."""

from typing import TYPE_CHECKING

from .._lazy import lazy_exports

if TYPE_CHECKING:
    from ..scene import SersicParams as SersicParams
    from ..scene.profiles import generate_sersic_profile as generate_sersic_profile
    from ..scene.render.sersic_profile import compute_bn as compute_bn
    from .chunks import DriveDataset as DriveDataset
    from .datasets import SimulatedGalaxyDataset as SimulatedGalaxyDataset
    from .galaxies import GalaxyDataset as GalaxyDataset
    from .loaders import create_dataloaders as create_dataloaders
    from .sersic_simulator import SersicSimulator as SersicSimulator
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {
            "DriveDataset": ".chunks",
            "GalaxyDataset": ".galaxies",
            "SersicParams": "..scene",
            "SersicSimulator": ".sersic_simulator",
            "SimulatedGalaxyDataset": ".datasets",
            "compute_bn": "..scene.render.sersic_profile",
            "create_dataloaders": ".loaders",
            "generate_sersic_profile": "..scene.profiles",
        },
    )
