#!/usr/bin/env bash
# The reference's log-probabilities for stage 3, one node a job; jobs of an array share the shards:
#   sbatch --array=0-3 slurm/reference.sh --checkpoint DIR --data DIR [--out FILE] [key=value ...]
#SBATCH --job-name=amalia-reference
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=14
#SBATCH --exclusive
#SBATCH --time=12:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%A_%a.out
AMALIA_ROOT=${AMALIA_ROOT:-$SLURM_SUBMIT_DIR}
# shellcheck source=slurm/job.sh
source "$AMALIA_ROOT/slurm/job.sh" || exit 2
find_site
begin "runs/reference/job-$SLURM_JOB_ID"
with_defaults -- "$@"
in_step "${rank_logs[@]}" -- "${site_amalia[@]}" reference "$@" "${words[@]:0:${#words[@]}-$#}" # the site's and the layout
finish
