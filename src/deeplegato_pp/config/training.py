"""The sections of a configuration that say how a network is trained, validated and recorded."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class TrainingConfig:
    """How the network is trained.

    Attributes:
        seed: Of weights, stream and validation set.
        batch_size: Images per process and forward pass.
        accumulation_steps: Forward passes per step; the images of a step are their product (times
            the number of processes).
        max_steps: Optimizer steps of the whole run, a multiple of `steps_per_epoch` or fewer.
        steps_per_epoch: Steps between checkpoints and, unless `validation.val_check_interval`
            says otherwise, validations.
        max_epochs: Length of the run in epochs; given, it takes the place of `max_steps`.
        task: ``"posterior"``, or ``"reconstruction"`` for self-supervised pre-training of the
            backbone, which needs no labels.
        optimizer: A timm optimizer's name; ``"muon"`` uses AdamW for biases and norms.
        learning_rate: Peak learning rate.
        min_learning_rate: Where the cosine schedules end.
        weight_decay: Decoupled weight decay.
        betas: Decay rates of Adam's moments (in Muon: of its AdamW part); None for timm's own.
        scheduler: ``"wsd"`` (warm-up, stable, decay over `decay_steps`), ``"cosine"``,
            ``"one_cycle"`` or ``"cosine_restarts"``.
        warmup_steps: Steps of the rise to the peak.
        decay_steps: Steps of the final decay (wsd).
        restart_epochs: Epochs until the first warm restart (cosine_restarts).
        restart_factor: Each period is this many times as long as the one before.
        gradient_clip: Largest norm of the gradient.
        precision: Lightning's precision: ``"32-true"``, ``"bf16-mixed"`` or ``"16-mixed"``, or
            short ``"fp32"``, ``"bf16"``, ``"fp16"``. The flow stays float32.
        compile: Compile the image network with ``torch.compile``: a minute at the start, which
            needs a C++ compiler, for faster steps.
        ema_decay: Decay of the averaged weights that are validated and kept.
        gaussian_weight: Weight of the Gaussian term beside the flow's.
        reconstruction_weight: Weight of the reconstruction of hidden pixels beside the posterior.
        reconstruction_kind: ``"mse"``, ``"l1"`` or ``"huber"``.
        hidden_share: Share of the stamp that is hidden from the network for reconstruction.
        physics_weight: Weight of the luminosity-size relation, a prior beside the prior.
        calibration_weight: Weight of the differentiable miscalibration.
        calibration_draws: Posterior draws per galaxy behind that.
        early_stopping_patience: Validations without improvement after which the run ends; 0
            never ends it.
        checkpoint_every_n_epochs: Epochs between checkpoints.
        resume_from_latest: Go on from the last checkpoint of the folder, if there is one.
        save_to_drive: Put a relative `logging.output_dir` under `data.drive_base`.
        num_workers: Processes that make batches; 0 makes them in the training process.
        accelerator: Lightning's accelerator.
        devices: Processes that train together, one device each.
        num_nodes: Machines that train together, each with so many devices.
        strategy: Lightning's strategy; ``"auto"`` is DDP where there are several devices.
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
    """What the network is validated on.

    Attributes:
        num_images: Fixed simulations per validation set (one clean, one as in training), rounded
            down to whole batches.
        batch_size: Images per step.
        num_posterior_samples: Draws per galaxy behind the errors and the coverage; 0 leaves the
            coverage out and takes the whitening's mean for the errors.
        val_check_interval: Epochs between validations, 1 or a fraction of it.
    """

    num_images: int = 1024
    batch_size: int = 128
    num_posterior_samples: int = 100
    val_check_interval: float = 1.0


@dataclass
class LoggingConfig:
    """Where a run leaves its record.

    Attributes:
        output_dir: Folder of checkpoints, curve and model.
        every_n_steps: Steps between lines of ``steps.csv``, the training loss.
        progress_bar: Show a progress bar.
        tensorboard: Write TensorBoard's events as well (extra ``train``).
        use_wandb: Report to Weights & Biases as well, where it is installed.
        project_name: Project there.
        log_dir: Folder of those two; empty for ``logs`` in the output folder.
        log_images_every_n_epochs: Epochs between pictures of validation stamps in those two;
            0 for none.
    """

    output_dir: str = "runs/default"
    every_n_steps: int = 50
    progress_bar: bool = True
    tensorboard: bool = False
    use_wandb: bool = False
    project_name: str = "deeplegato"
    log_dir: str = ""
    log_images_every_n_epochs: int = 0
