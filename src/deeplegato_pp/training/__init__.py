"""Training: loss, Lightning module and training loop; helpers for Colab."""

from typing import TYPE_CHECKING

from .._lazy import lazy_exports

if TYPE_CHECKING:
    from .colab_utils import auto_select_config as auto_select_config
    from .colab_utils import clear_gpu_memory as clear_gpu_memory
    from .colab_utils import get_best_checkpoint as get_best_checkpoint
    from .colab_utils import get_latest_checkpoint as get_latest_checkpoint
    from .colab_utils import is_colab as is_colab
    from .colab_utils import print_gpu_info as print_gpu_info
    from .colab_utils import save_model_to_drive as save_model_to_drive
    from .colab_utils import setup_drive_paths as setup_drive_paths
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
            "auto_select_config": ".colab_utils",
            "clear_gpu_memory": ".colab_utils",
            "get_best_checkpoint": ".colab_utils",
            "get_latest_checkpoint": ".colab_utils",
            "is_colab": ".colab_utils",
            "print_gpu_info": ".colab_utils",
            "save_model_to_drive": ".colab_utils",
            "setup_drive_paths": ".colab_utils",
            "train": ".train",
        },
    )
