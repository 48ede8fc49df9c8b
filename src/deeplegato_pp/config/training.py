"""Sections of a configuration for training, validation and logging."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class TrainingConfig:
    """Training of the network.

    Attributes:
        seed: Random seed of weights, training stream and validation set.
        batch_size: Number of images per process and forward pass.
        accumulation_steps: Forward passes per step; a step has `batch_size` times this number of
            images (times the number of processes).
        max_steps: Number of optimizer steps, a multiple of `steps_per_epoch` or fewer.
        steps_per_epoch: Steps between checkpoints and, unless `validation.val_check_interval` is
            set, between validations.
        max_epochs: Number of epochs; replaces `max_steps` if given.
        task: ``"posterior"``, or ``"reconstruction"`` for self-supervised pre-training of the
            backbone, without labels.
        optimizer: Name of a timm optimizer; ``"muon"`` uses AdamW for biases and norms.
        learning_rate: Peak learning rate.
        min_learning_rate: Final learning rate of the cosine schedules.
        weight_decay: Decoupled weight decay.
        betas: Decay rates of Adam's moments (for Muon, of its AdamW part); None for timm's
            defaults.
        scheduler: ``"wsd"`` (warm-up, stable, decay over `decay_steps`), ``"cosine"``,
            ``"one_cycle"`` or ``"cosine_restarts"``.
        warmup_steps: Number of steps of the warm-up.
        decay_steps: Number of steps of the final decay (wsd).
        restart_epochs: Number of epochs until the first warm restart (cosine_restarts).
        restart_factor: Ratio of the lengths of successive periods.
        gradient_clip: Maximum norm of the gradient.
        precision: Lightning's precision: ``"32-true"``, ``"bf16-mixed"`` or ``"16-mixed"``, or
            short ``"fp32"``, ``"bf16"``, ``"fp16"``. The flow uses float32.
        compile: Compile the image network with ``torch.compile``, which takes a minute and a C++
            compiler, and makes steps faster.
        ema_decay: Decay of the averaged weights, which are validated and saved.
        gaussian_weight: Weight of the loss of the Gaussian whitening.
        reconstruction_weight: Weight of the loss of the reconstruction of hidden pixels.
        reconstruction_kind: ``"mse"``, ``"l1"`` or ``"huber"``.
        hidden_share: Fraction of the stamp hidden from the network for reconstruction.
        physics_weight: Weight of the luminosity-size relation, an additional prior.
        calibration_weight: Weight of the differentiable calibration loss.
        calibration_draws: Number of posterior draws per galaxy for the calibration loss.
        early_stopping_patience: Number of validations without improvement after which training
            stops; 0 disables this.
        checkpoint_every_n_epochs: Number of epochs between checkpoints.
        resume_from_latest: Continue from the last checkpoint of the folder, if there is one.
        save_to_drive: Position a relative `logging.output_dir` under `data.drive_base`.
        num_workers: Number of processes that prepare batches; 0 uses the training process.
        accelerator: Lightning's accelerator.
        devices: Number of processes for distributed training, one device each.
        num_nodes: Number of machines for distributed training, each with this number of devices.
        strategy: Lightning's strategy; ``"auto"`` is DDP for several devices.
    """

    seed: int = 0
    batch_size: int = 64
    accumulation_steps: int = 1
    max_steps: int = 6000
    steps_per_epoch: int = 250
    max_epochs: int | None = None
    task: str = "posterior"
    optimizer: str = "muon"
    learning_rate: float = 3e-3
    min_learning_rate: float = 0.0
    weight_decay: float = 0.01
    betas: tuple[float, float] | None = None
    scheduler: str = "wsd"
    warmup_steps: int = 200
    decay_steps: int = 1500
    restart_epochs: int = 10
    restart_factor: int = 2
    gradient_clip: float = 1.0
    precision: str = "bf16-mixed"
    compile: bool = False
    ema_decay: float = 0.998
    gaussian_weight: float = 1.0
    reconstruction_weight: float = 0.0
    reconstruction_kind: str = "huber"
    hidden_share: float = 0.5
    physics_weight: float = 0.0
    calibration_weight: float = 0.0
    calibration_draws: int = 16
    early_stopping_patience: int = 0
    checkpoint_every_n_epochs: int = 1
    resume_from_latest: bool = True
    save_to_drive: bool = False
    num_workers: int = 0
    accelerator: str = "auto"
    devices: int = 1
    num_nodes: int = 1
    strategy: str = "auto"


@dataclass
class ValidationConfig:
    """Validation of the network.

    Attributes:
        num_images: Number of fixed simulations per validation set (one clean, one as in training),
            rounded down to whole batches.
        batch_size: Number of images per step.
        num_posterior_samples: Number of draws per galaxy for errors and coverage; 0 omits the
            coverage and uses the whitening's mean for the errors.
        val_check_interval: Number of epochs between validations, at most 1.
    """

    num_images: int = 1024
    batch_size: int = 128
    num_posterior_samples: int = 100
    val_check_interval: float = 1.0


@dataclass
class LoggingConfig:
    """Logging of a run.

    Attributes:
        output_dir: Folder of checkpoints, learning curve and model.
        every_n_steps: Steps between rows of ``steps.csv``, the training loss.
        progress_bar: Show a progress bar.
        tensorboard: Also write TensorBoard events (extra ``train``).
        use_wandb: Also log to Weights & Biases, if it is installed.
        project_name: Name of the Weights & Biases project.
        log_dir: Folder of TensorBoard and Weights & Biases files; empty for ``logs`` in the output
            folder.
        log_images_every_n_epochs: Epochs between logged images of validation stamps; 0 for none.
    """

    output_dir: str = "runs/default"
    every_n_steps: int = 50
    progress_bar: bool = True
    tensorboard: bool = False
    use_wandb: bool = False
    project_name: str = "deeplegato"
    log_dir: str = ""
    log_images_every_n_epochs: int = 0
