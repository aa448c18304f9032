#!/usr/bin/env bash
# A data set of section 5.1, made on one node:  sbatch slurm/data_prep.sh NAME run models=paper [key=value ...]
# With executor=slurm it submits the arrays of a run over many nodes and ends. Killed or requeued, the same run goes on.
#SBATCH --job-name=amalia-data
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --output=slurm-%j.out
AMALIA_ROOT=${AMALIA_ROOT:-$SLURM_SUBMIT_DIR}
# shellcheck source=slurm/job.sh
source "$AMALIA_ROOT/slurm/job.sh" || exit 2
AMALIA_SITE=bare find_site # the environment of make setup: the trainer's container lacks the extra data-prep and bubblewrap
begin "runs/data_prep/job-$SLURM_JOB_ID"
[[ -n $(value_of executor "$@")$(value_of executor.workers "$@") ]] || set -- "$@" "executor.workers=$SLURM_CPUS_PER_TASK"
in_step -- "${site_amalia[0]}" -m data_prep.cli "$@"
exit "$rc"
