"""The typed schema of a run. conf/ holds values only; every key it may hold is a field here, and no other.

Source of the stage table: section 6 of the paper. Where the paper gives no number, conf/ says whose it is.
"""

from dataclasses import dataclass, field

MISSING = "???"  # OmegaConf's mark for a value that the user must give

SCHEDULES = ("constant", "cosine")
PACKING_ALGORITHMS = ("best_fit_decreasing", "balanced")  # of data/packing/algorithms.py
SAMPLE_KINDS = ("conversations", "preferences")  # what a stage's data may hold (data/encoding/encoders.py)
RECOMPUTE = ("none", "selective", "full")
MODULES = ("tower", "connector", "decoder")  # what a stage may train, a learning rate each
PREFERENCE_STAGE = "dpo"  # the stage.name that trains on pairs
PREFERENCE_LOSSES = ("sigmoid", "ipo", "robust")
REFERENCES = ("precomputed", "in_memory")
PACK_LENGTH = 16384  # tokens of a pack in the paper's stage 2, for commands that have no stage

# Keys that had another name: the old one -> the new one, which an error then names.
RENAMED = {"data.max_loss_share": "data.max_dropped_fraction"}


@dataclass
class LearningRates:
    """Peak learning rate of each module; 0.0 for one that the stage does not train."""

    tower: float = 0.0
    connector: float = 0.0
    decoder: float = 0.0


@dataclass
class PreferenceConfig:
    """The loss of a pair, with the names of NeMo RL and TRL (training/steps/preference_loss.py has the formulas).

    Pairs' mixed preference objective (MPO, arXiv 2411.10442) is preference + quality + sft.
    """

    preference_loss: str = "sigmoid"  # of PREFERENCE_LOSSES
    reference_policy_kl_penalty: float = 0.1  # beta
    label_smoothing: float = 0.0  # share of labels that may be wrong; sigmoid: conservative DPO, robust: robust DPO
    preference_loss_weight: float = 1.0
    quality_loss_weight: float = 0.0  # BCO pair, MPO's quality term
    sft_loss_weight: float = 0.0  # of the chosen answer, MPO's generation term
    length_normalised: bool = False  # log ratios a token, not summed; ipo always is


@dataclass
class StageConfig:
    """What one stage of the paper trains, on how much, and how fast."""

    name: str = MISSING
    trainable: list[str] = field(default_factory=list)  # of MODULES
    learning_rates: LearningRates = field(default_factory=LearningRates)
    min_lr_ratio: float = 0.0  # the cosine's floor, as a share of the peak
    schedule: str = "cosine"  # of SCHEDULES
    warmup_fraction: float = 0.03  # of train_steps
    train_steps: int | None = None
    epochs: float | None = None  # instead of train_steps, with data.pack_index: passes over its packs
    global_batch_size: int = MISSING  # packs, or samples where packing is off
    micro_batch_size: int = 1  # rows a forward; packing needs 1 (a pack is a row)
    seq_length: int = MISSING  # tokens of a pack, or the longest sample where packing is off
    tiling: bool = True  # False: thumbnail only (the paper's "Tiles 1")
    packing: bool = True
    preference: PreferenceConfig = field(default_factory=PreferenceConfig)  # read by stage dpo alone, as all below
    reference: str = "precomputed"  # of REFERENCES: a file of `amalia reference`, or a frozen second model
    reference_file: str | None = None  # None: beside the data (reference_file of training/reference/file.py)

    @property
    def sample_kind(self) -> str:
        """What its data holds, of SAMPLE_KINDS: pairs of answers, or conversations."""
        return SAMPLE_KINDS[self.name == PREFERENCE_STAGE]


@dataclass
class ModelConfig:
    """Where the weights come from, and how the tower is run. The architecture is read from the checkpoint."""

    checkpoint: str = MISSING  # a Megatron checkpoint: of `amalia import`, or of the stage before
    architecture: str | None = None  # for `amalia plan` and `dryrun` without one: a folder of conf/model, or an HF one
    tower_data_parallel: bool = True  # each TP rank encodes its share of the tiles; False: all encode all


@dataclass
class DataConfig:
    """Where samples come from and how they wait."""

    path: str = MISSING  # a prepared WebDataset folder, or a metadataset.yaml of several
    pack_index: str | None = None  # of `amalia data pack`: known packs, exact epochs; None: Energon packs in a buffer
    share_pair_images: bool = True  # of a pair: encoded once for both answers; False: once for each, to compare
    num_workers: int = 2
    packing_buffer_size: int = 500  # samples that the packing algorithm looks at
    packing_algorithm: str = "best_fit_decreasing"  # of PACKING_ALGORITHMS
    shuffle_buffer_size: int = 1000  # samples
    max_samples_per_sequence: int = 100  # samples read in one run from a shard
    on_bad_sample: str = "fail"  # fail | drop; a bad image is always dropped, with its sample
    max_image_pixels: int = 100_000_000  # width x height; a larger image counts as a bad one, before it is decoded
    max_dropped_fraction: float = 0.001  # of a source's samples, or of 1,000 where it gave fewer; more ends the run
    worker_timeout: float = 600.0  # seconds without a batch after which a worker counts as hanging
    quarantine: str | None = None  # samples to leave out: a .jsonl, or a run's quarantine/
    start_anew_at: int | None = None  # resuming at this step, begin the data again instead of at its saved position


@dataclass
class ParallelConfig:
    """How the model is cut and what it keeps for the backward. The data-parallel size is what is left of the world."""

    world_size: int | None = None  # GPUs that the layout was made for; None: any
    tensor: int = 1
    pipeline: int = 1
    context: int = 1
    sequence: bool = False
    virtual_pipeline: int | None = None
    first_stage_layers: int | None = None  # the tower lives on the first stage: give it fewer layers
    last_stage_layers: int | None = None  # the output layer lives on the last one
    distributed_optimizer: bool = True
    overlap_grad_reduce: bool = False
    overlap_param_gather: bool = False
    overlap_tensor: bool = False  # TP's communication under its matrix products; Transformer Engine and sequence=true
    recompute: str = "none"  # of RECOMPUTE
    recompute_layers: int = 1  # layers a block, for full
    tower_recompute: bool = False  # keep no activations of the tower's layers


@dataclass
class PrecisionConfig:
    """fp32, or one of Megatron Bridge's mixed-precision recipes by name; FP8 is for the decoder's linear layers alone.

    Tower, connector, embedding, output layer and attention stay in the precision below FP8 (docs/layouts.md).
    """

    recipe: str = "bf16_mixed"  # fp32, or a name of RECIPES (config/precision.py)
    fused_cross_entropy: bool = True  # rounds the loss gradient to bf16: off wherever parity matters
    fp8_format: str | None = None  # of FP8_FORMATS (config/precision.py); None: the recipe's own
    fp8_scaling: str | None = None  # with recipe fp32 alone: FP8 on top of it, as benchmarks/fp8.py compares them
    first_layers_bf16: int = 0  # decoder layers at the start without FP8
    last_layers_bf16: int = 0  # and at the end
    fp8_parameters: bool = False  # hold weights in FP8: saves memory, but master weights start from rounded ones


@dataclass
class OptimConfig:
    """AdamW (the paper's reference 26)."""

    adam_beta1: float = 0.9
    adam_beta2: float = 0.95
    adam_eps: float = 1e-8
    weight_decay: float = 0.0
    clip_grad: float = 1.0


@dataclass
class CheckpointConfig:
    """When to save, how many to keep, and whether writing happens beside training."""

    save_interval: int = 500
    keep_last: int = 2
    asynchronous: bool = False


@dataclass
class LoggingConfig:
    """TensorBoard is always written; the others where a project is named."""

    interval: int = 10  # steps
    wandb_project: str | None = None
    wandb_entity: str | None = None
    mlflow_experiment: str | None = None
    mlflow_tracking_uri: str | None = None


@dataclass
class ClusterConfig:
    """The machines that `amalia plan` reckons with and that layouts are checked against; training reads the memory.

    Rates are a GPU's; TFLOPS are of dense matrix products as the vendor states them.
    """

    name: str = "laptop"
    gpu: str | None = None  # None: no GPU, nothing to check against
    gpus_per_node: int = 0
    gpu_memory_gb: float = 0.0  # GiB that a process may use
    bf16_tflops: float = 0.0
    fp8_tflops: float = 0.0
    memory_bandwidth_gb_s: float = 0.0
    nvlink_gb_s: float = 0.0  # inside a node, one direction
    network_gb_s: float = 0.0  # between nodes, one direction
    gpu_watts: float = 0.0  # at load
    node_watts: float = 0.0  # of a node besides its GPUs


@dataclass
class LaunchConfig:
    """How `amalia train` starts ranks on one machine; under torchrun or Slurm it is not read."""

    ranks: int | None = None  # None: one a GPU, or as many as the layout needs on a CPU
    threads: int | None = None  # OpenMP threads a rank; None: cores / ranks


@dataclass
class RunConfig:
    """One training run."""

    run_dir: str = MISSING
    seed: int = 1234
    stop_after: int | None = None  # stop after this many steps, with the schedule of the whole run
    stage: StageConfig = field(default_factory=StageConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    precision: PrecisionConfig = field(default_factory=PrecisionConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    logging: LoggingConfig = field(default_factory=LoggingConfig)
    launch: LaunchConfig = field(default_factory=LaunchConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
