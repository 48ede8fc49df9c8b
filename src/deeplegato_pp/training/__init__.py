"""Training: the loss, the Lightning module and the loop around it."""

from typing import TYPE_CHECKING

from .._lazy import lazy_exports

if TYPE_CHECKING:
    from .losses import NPELoss as NPELoss
    from .losses import PhysicsInformedLoss as PhysicsInformedLoss
    from .losses import ReconstructionLoss as ReconstructionLoss
    from .losses import UncertaintyCalibrationLoss as UncertaintyCalibrationLoss
    from .train import train as train
    from .trainer import DeepLeGAToPPTrainer as DeepLeGAToPPTrainer
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {
            "DeepLeGAToPPTrainer": ".trainer",
            "NPELoss": ".losses",
            "PhysicsInformedLoss": ".losses",
            "ReconstructionLoss": ".losses",
            "UncertaintyCalibrationLoss": ".losses",
            "train": ".train",
        },
    )
