# shellcheck shell=bash disable=SC2034
# MareNostrum 5 ACC (BSC): 4 H100 64 GB and 80 cores a node, Singularity, no internet on compute nodes.
#
# On a login node:  export AMALIA_ACCOUNT=... AMALIA_QOS=acc_...; . slurm/sites/marenostrum5.sh
# Then sbatch asks for this machine's nodes: 4 tasks, 4 GPUs and 20 cores a task, as its submit filter demands, and no
# memory, which it refuses.
if [[ -z ${SLURM_JOB_ID:-} ]]; then
  sbatch() { # our scripts say nodes x 8 tasks; the same GPUs are twice as many nodes here
    local word script='' nodes tasks
    for word; do [[ $word == *.sh && -f $word ]] && script=$word && break; done
    if [[ -z $script ]] || ! grep -q '^#SBATCH --ntasks-per-node' "$script"; then
      command sbatch "$@"
      return
    fi
    nodes=$(sed -n 's/^#SBATCH --nodes=//p' "$script") tasks=$(sed -n 's/^#SBATCH --ntasks-per-node=//p' "$script")
    local -a shape=(--nodes=$((nodes * tasks > 4 ? nodes * tasks / 4 : 1)) --ntasks-per-node=$((tasks > 4 ? 4 : tasks)))
    shape+=(--gpus-per-node=$((tasks > 4 ? 4 : tasks)) --cpus-per-task=20) # the filter sees it as --gres=gpu:4
    AMALIA_SITE=marenostrum5 command sbatch "${shape[@]}" --account="${AMALIA_ACCOUNT:?your project}" \
      --qos="${AMALIA_QOS:?as bsc_queues lists them}" "$@"
  }
else
  command -v singularity >/dev/null || module load singularity
  : "${AMALIA_IMAGE:=$AMALIA_ROOT/nemo_amalia.sif}"
  : "${AMALIA_MOUNTS:=/gpfs}" # data, checkpoints, runs and this repository lie there
  [[ -e $AMALIA_IMAGE ]] || refuse "no image $AMALIA_IMAGE: make it (docs/cluster.md), or name it in AMALIA_IMAGE"
  site_cluster=marenostrum5
  # --nv: the driver's libraries.
  site_prefix=(singularity exec --nv --bind "$AMALIA_MOUNTS" --pwd "$PWD" "$AMALIA_IMAGE")
  export PYTHONNOUSERSITE=1 # packages in the home would come before the image's
  export PYTHONPATH=$AMALIA_ROOT # this repository's code and conf/, not the copy in the image
  export HF_HUB_OFFLINE=1 WANDB_MODE=offline # no internet: a look-up would hang until it times out
fi
