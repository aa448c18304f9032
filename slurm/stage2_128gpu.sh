#!/usr/bin/env bash
# The paper's stage 2, everything, on 128 GPUs. From the repository's root:
#   sbatch slurm/stage2_128gpu.sh model.checkpoint=DIR data.path=DIR run_dir=DIR [key=value ...]
#SBATCH --job-name=amalia-stage2
#SBATCH --nodes=16
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=14
#SBATCH --exclusive
#SBATCH --time=24:00:00
#SBATCH --signal=B:USR1@600
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%j.out
AMALIA_ROOT=${AMALIA_ROOT:-$SLURM_SUBMIT_DIR}
# shellcheck source=slurm/job.sh
source "$AMALIA_ROOT/slurm/job.sh" || exit 2
find_site
with_defaults stage=sft -- "$@"
begin "$(value_of run_dir "${words[@]}")"
preflight "${words[@]}"
((rc)) || in_step "${rank_logs[@]}" -- "${site_amalia[@]}" train "${words[@]}"
finish
