"""The typed schema of a run. conf/ holds values only; every key it may hold is a field here, and no other.

Each says what it may hold (config/validation/ranges.py refuses the rest) and whether it may change when a run resumes
(training/preflight/resume.py): `same` for what decides the weights; `free` for the rest, and for what the dataloader
state itself is compared by.

Source of the stage table: section 6 of the paper. Where the paper gives no number, conf/ says whose it is.
"""

from dataclasses import dataclass, field

from nemo_amalia.config.key import free, same

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
ON_BAD_SAMPLE = ("fail", "drop")

MOST_STEPS = 1_000_000_000
MOST_RANKS = 1_000_000


@dataclass
class LearningRates:
    """Peak learning rate of each module; 0.0 for one that the stage does not train."""

    tower: float = same(0.0, least=0, most=1)
    connector: float = same(0.0, least=0, most=1)
    decoder: float = same(0.0, least=0, most=1)


@dataclass
class PreferenceConfig:
    """The loss of a pair, with the names of NeMo RL and TRL (training/steps/preference_loss.py has the formulas).

    Pairs' mixed preference objective (MPO, arXiv 2411.10442) is preference + quality + sft.
    """

    preference_loss: str = same("sigmoid", choices=PREFERENCE_LOSSES)
    reference_policy_kl_penalty: float = same(0.1, above=0, most=1_000)  # beta
    # share of labels that may be wrong; sigmoid: conservative DPO, robust: robust DPO
    label_smoothing: float = same(0.0, least=0, below=0.5)
    preference_loss_weight: float = same(1.0, least=0, most=1_000)
    quality_loss_weight: float = same(0.0, least=0, most=1_000)  # BCO pair, MPO's quality term
    sft_loss_weight: float = same(0.0, least=0, most=1_000)  # of the chosen answer, MPO's generation term
    length_normalised: bool = same(False)  # log ratios a token, not summed; ipo always is


@dataclass
class StageConfig:
    """What one stage of the paper trains, on how much, and how fast."""

    name: str = same(MISSING, filled=True)
    trainable: list[str] = same([], choices=MODULES)
    learning_rates: LearningRates = field(default_factory=LearningRates)
    min_lr_ratio: float = same(0.0, least=0, most=1)  # the cosine's floor, as a share of the peak
    schedule: str = same("cosine", choices=SCHEDULES)
    warmup_fraction: float = same(0.03, least=0, most=1)  # of train_steps
    train_steps: int | None = same(None, least=1, most=MOST_STEPS)
    # instead of train_steps, with data.pack_index: passes over its packs
    epochs: float | None = free(None, above=0, most=1_000_000)
    global_batch_size: int = same(MISSING, least=1, most=1_048_576)  # packs, or samples where packing is off
    micro_batch_size: int = free(1, least=1, most=65_536)  # rows a forward; packing needs 1 (a pack is a row)
    # tokens of a pack, or the longest sample where packing is off
    seq_length: int = same(MISSING, least=1, most=1_048_576)
    tiling: bool = same(True)  # False: thumbnail only (the paper's "Tiles 1")
    packing: bool = same(True)
    preference: PreferenceConfig = field(default_factory=PreferenceConfig)  # read by stage dpo alone, as all below
    reference: str = same("precomputed", choices=REFERENCES)  # a file of `amalia reference`, or a frozen second model
    # None: beside the data (reference_file of training/reference/file.py)
    reference_file: str | None = free(None, is_path=True)

    @property
    def sample_kind(self) -> str:
        """What its data holds, of SAMPLE_KINDS: pairs of answers, or conversations."""
        return SAMPLE_KINDS[self.name == PREFERENCE_STAGE]


@dataclass
class ModelConfig:
    """Where the weights come from, and how the tower is run. The architecture is read from the checkpoint."""

    checkpoint: str = same(MISSING, is_path=True)  # a Megatron checkpoint: of `amalia import`, or of the stage before
    # for `amalia plan` and `dryrun` without one: a folder of conf/model, or an HF one
    architecture: str | None = free(None)
    tower_data_parallel: bool = free(True)  # each TP rank encodes its share of the tiles; False: all encode all


@dataclass
class DataConfig:
    """Where samples come from and how they wait."""

    path: str = same(MISSING, is_path=True)  # a prepared WebDataset folder, or a metadataset.yaml of several
    # of `amalia data pack`: known packs, exact epochs; None: Energon packs in a buffer
    pack_index: str | None = free(None, is_path=True)
    share_pair_images: bool = free(True)  # of a pair: encoded once for both answers; False: once for each, to compare
    num_workers: int = free(2, least=0, most=512)
    packing_buffer_size: int = free(500, least=1, most=1_000_000)  # samples that the packing algorithm looks at
    packing_algorithm: str = free("best_fit_decreasing", choices=PACKING_ALGORITHMS)
    shuffle_buffer_size: int = free(1000, least=0, most=100_000_000)  # samples
    max_samples_per_sequence: int = free(100, least=1, most=1_000_000)  # samples read in one run from a shard
    on_bad_sample: str = free("fail", choices=ON_BAD_SAMPLE)  # a bad image is always dropped, with its sample
    # width x height; a larger image counts as a bad one, before it is decoded
    max_image_pixels: int = free(100_000_000, least=1, most=1_000_000_000_000)
    # of a source's samples, or of 1,000 where it gave fewer; more dropped ends the run
    max_dropped_fraction: float = free(0.001, least=0, most=1)
    # seconds without a batch after which a worker counts as hanging
    worker_timeout: float = free(600.0, above=0, most=1_000_000)
    quarantine: str | None = free(None, is_path=True)  # samples to leave out: a .jsonl, or a run's quarantine/
    # resuming at this step, begin the data again instead of at its saved position
    start_anew_at: int | None = free(None, least=0, most=MOST_STEPS)


@dataclass
class ParallelConfig:
    """How the model is cut and what it keeps for the backward. The data-parallel size is what is left of the world."""

    world_size: int | None = free(None, least=1, most=MOST_RANKS)  # GPUs that the layout was made for; None: any
    tensor: int = free(1, least=1, most=1_024)
    pipeline: int = free(1, least=1, most=1_024)
    context: int = free(1, least=1, most=1_024)
    sequence: bool = free(False)
    virtual_pipeline: int | None = free(None, least=2, most=1_024)
    # the tower lives on the first stage: give it fewer layers
    first_stage_layers: int | None = free(None, least=1, most=10_000)
    last_stage_layers: int | None = free(None, least=1, most=10_000)  # the output layer lives on the last one
    distributed_optimizer: bool = same(True)  # the two keep their state in forms that do not load into each other
    overlap_grad_reduce: bool = free(False)
    overlap_param_gather: bool = free(False)
    # TP's communication under its matrix products; Transformer Engine and sequence=true
    overlap_tensor: bool = free(False)
    recompute: str = free("none", choices=RECOMPUTE)
    recompute_layers: int = free(1, least=1, most=10_000)  # layers a block, for full
    tower_recompute: bool = free(False)  # keep no activations of the tower's layers


@dataclass
class PrecisionConfig:
    """fp32, or one of Megatron Bridge's mixed-precision recipes by name; FP8 is for the decoder's linear layers alone.

    Tower, connector, embedding, output layer and attention stay in the precision below FP8 (docs/layouts.md).
    """

    recipe: str = same("bf16_mixed")  # fp32, or a name of RECIPES (config/precision.py)
    fused_cross_entropy: bool = same(True)  # rounds the loss gradient to bf16: off wherever parity matters
    fp8_format: str | None = same(None)  # of FP8_FORMATS (config/precision.py); None: the recipe's own
    fp8_scaling: str | None = same(None)  # with recipe fp32 alone: FP8 on top of it, as benchmarks/fp8.py compares them
    first_layers_bf16: int = same(0, least=0, most=10_000)  # decoder layers at the start without FP8
    last_layers_bf16: int = same(0, least=0, most=10_000)  # and at the end
    fp8_parameters: bool = same(False)  # hold weights in FP8: saves memory, but master weights start from rounded ones


@dataclass
class OptimConfig:
    """AdamW (the paper's reference 26)."""

    adam_beta1: float = same(0.9, least=0, below=1)
    adam_beta2: float = same(0.95, least=0, below=1)
    adam_eps: float = same(1e-8, above=0, most=1)
    weight_decay: float = same(0.0, least=0, most=1_000)
    clip_grad: float = same(1.0, least=0, most=1_000_000_000)


@dataclass
class CheckpointConfig:
    """When to save, how many to keep, and whether writing happens beside training."""

    save_interval: int = free(500, least=1, most=MOST_STEPS)
    keep_last: int = free(2, least=1, most=1_000_000)
    asynchronous: bool = free(False)


@dataclass
class LoggingConfig:
    """TensorBoard is always written; the others where a project is named."""

    interval: int = free(10, least=1, most=MOST_STEPS)  # steps
    wandb_project: str | None = free(None)
    wandb_entity: str | None = free(None)
    mlflow_experiment: str | None = free(None)
    mlflow_tracking_uri: str | None = free(None)


@dataclass
class ClusterConfig:
    """The machines that `amalia plan` reckons with and that layouts are checked against; training reads the memory.

    Rates are a GPU's; TFLOPS are of dense matrix products as the vendor states them.
    """

    name: str = free("laptop")
    gpu: str | None = free(None)  # None: no GPU, nothing to check against
    gpus_per_node: int = free(0, least=0, most=1_024)
    gpu_memory_gb: float = free(0.0, least=0, most=1_000_000)  # GiB that a process may use
    bf16_tflops: float = free(0.0, least=0, most=1_000_000_000)
    fp8_tflops: float = free(0.0, least=0, most=1_000_000_000)
    memory_bandwidth_gb_s: float = free(0.0, least=0, most=1_000_000_000)
    nvlink_gb_s: float = free(0.0, least=0, most=1_000_000_000)  # inside a node, one direction
    network_gb_s: float = free(0.0, least=0, most=1_000_000_000)  # between nodes, one direction
    gpu_watts: float = free(0.0, least=0, most=1_000_000)  # at load
    node_watts: float = free(0.0, least=0, most=1_000_000)  # of a node besides its GPUs


@dataclass
class LaunchConfig:
    """How `amalia train` starts ranks on one machine; under torchrun or Slurm it is not read."""

    ranks: int | None = free(None, least=1, most=MOST_RANKS)  # None: one a GPU, or as many as the layout needs on a CPU
    threads: int | None = free(None, least=1, most=1_024)  # OpenMP threads a rank; None: cores / ranks


@dataclass
class RunConfig:
    """One training run."""

    run_dir: str = free(MISSING, is_path=True)
    seed: int = same(1234, least=0, most=2**31 - 1)  # Megatron adds 100 a pipeline stage, and numpy takes 32 bits
    # stop after this many steps, with the schedule of the whole run
    stop_after: int | None = free(None, least=1, most=MOST_STEPS)
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
