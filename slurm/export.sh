#!/usr/bin/env bash
# A checkpoint as a folder that transformers loads:  sbatch slurm/export.sh --checkpoint DIR --out DIR
#SBATCH --job-name=amalia-export
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=1
#SBATCH --cpus-per-task=14
#SBATCH --time=02:00:00
#SBATCH --output=slurm-%j.out
AMALIA_ROOT=${AMALIA_ROOT:-$SLURM_SUBMIT_DIR}
# shellcheck source=slurm/job.sh
source "$AMALIA_ROOT/slurm/job.sh" || exit 2
find_site
begin "runs/export/job-$SLURM_JOB_ID"
in_step -- "${site_amalia[@]}" export "$@"
exit "$rc"
