"""Configuration of simulator, network and training, from YAML files and overrides."""

from typing import TYPE_CHECKING

from .._lazy import lazy_exports

if TYPE_CHECKING:
    from .schema import BackboneConfig as BackboneConfig
    from .schema import ConditionsConfig as ConditionsConfig
    from .schema import Config as Config
    from .schema import DataConfig as DataConfig
    from .schema import ModelConfig as ModelConfig
    from .schema import NoiseConfig as NoiseConfig
    from .schema import NPEConfig as NPEConfig
    from .schema import load_config as load_config
    from .schema import merge_configs as merge_configs
    from .training import LoggingConfig as LoggingConfig
    from .training import TrainingConfig as TrainingConfig
    from .training import ValidationConfig as ValidationConfig
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {
            "BackboneConfig": ".schema",
            "ConditionsConfig": ".schema",
            "Config": ".schema",
            "DataConfig": ".schema",
            "LoggingConfig": ".training",
            "ModelConfig": ".schema",
            "NPEConfig": ".schema",
            "NoiseConfig": ".schema",
            "TrainingConfig": ".training",
            "ValidationConfig": ".training",
            "load_config": ".schema",
            "merge_configs": ".schema",
        },
    )
