#!/usr/bin/env bash
# lmms-eval on an exported folder, one task after another on one GPU; jobs of an array share the tasks:
#   sbatch --array=0-3 slurm/evaluate.sh hf=DIR out=DIR [tasks=a,b] [include_path=DIR] [limit=N] [device=cuda]
#SBATCH --job-name=amalia-evaluate
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=1
#SBATCH --cpus-per-task=14
#SBATCH --time=12:00:00
#SBATCH --output=slurm-%j.out
AMALIA_ROOT=${AMALIA_ROOT:-$SLURM_SUBMIT_DIR}
# shellcheck source=slurm/job.sh
source "$AMALIA_ROOT/slurm/job.sh" || exit 2

for word; do
  [[ $word =~ ^(hf|out|tasks|include_path|limit|device)=. ]] ||
    refuse "$word: expected hf=DIR out=DIR [tasks=a,b] [include_path=DIR] [limit=N] [device=cuda]"
done
hf=$(value_of hf "$@") out=$(value_of out "$@") include_path=$(value_of include_path "$@")
limit=$(value_of limit "$@") device=$(value_of device "$@") tasks=$(value_of tasks "$@")
: "${device:=cuda}"
: "${tasks:=ai2d_pt,chartqa_pt,docvqa_pt,infovqa_pt,textvqa_pt,ocrbench_pt,mme_pt,mmmu_pt,mmmu_pro_pt,mmstar_pt,seedbench_pt,mathvision_pt,realworldqa_pt,embspatial_pt,pope_pt,coco2017_cap_pt,refcoco_bbox_pt,refcoco_bbox_rec_pt}"
[[ -n $hf ]] || refuse "no hf=... among the words: name the folder that slurm/export.sh wrote"
[[ -n $out ]] || refuse "no out=... among the words: name a folder for the results"
[[ -f $hf/config.json ]] || refuse "hf=$hf has no config.json: it is no exported folder, make one with slurm/export.sh"
[[ $hf != *[,=]* ]] || refuse "hf=$hf: lmms-eval cannot read a path with a comma or an equals sign, rename it"
[[ -z $include_path || -d $include_path ]] || refuse "include_path=$include_path is no folder: name the one of the tasks' YAML files"
[[ -z $limit || $limit =~ ^[1-9][0-9]*$ ]] || refuse "limit=$limit: expected a number of samples, 1 or more"

# Of an array, member i of n takes every n-th task.
IFS=, read -ra all <<<"$tasks"
member=$(((${SLURM_ARRAY_TASK_ID:-0} - ${SLURM_ARRAY_TASK_MIN:-0}) / ${SLURM_ARRAY_TASK_STEP:-1}))
mine=()
for ((i = member; i < ${#all[@]}; i += ${SLURM_ARRAY_TASK_COUNT:-1})); do mine+=("${all[i]}"); done

find_site
begin "$out/job-$SLURM_JOB_ID"
has="from importlib import metadata, util; bad = not all(map(util.find_spec, ('lmms_eval', 'decord')))"
in_step -- "${site_python[@]}" -c "$has; raise SystemExit(bad or metadata.version('lmms-eval') != '0.7.3')"
((rc == 0)) || refuse "${site_python[*]} has no lmms-eval 0.7.3 or no decord: make the environment of docs/cluster.md, Evaluation, and name its Python in AMALIA_PYTHON"

# --verbosity DEBUG: with any other, lmms-eval ends with code 0 after an exception. A folder a task: result files are
# named by the second. Batch size 1: llava_hf takes no other.
options=(--model llava_hf --model_args "pretrained=$hf,device_map=$device" --device "$device" --batch_size 1 --log_samples
  --verbosity DEBUG ${include_path:+--include_path "$include_path"} ${limit:+--limit "$limit"})
failed=()
for task in "${mine[@]}"; do
  say "$task"
  in_step -- "${site_python[@]}" -m lmms_eval "${options[@]}" --tasks "$task" --output_path "$out/$task"
  # An exception while it generates is only logged, and the answer scored as an empty one.
  empty=$(tail -c "+$step_from" "$log" | grep -c 'ERROR.*llava_hf.*generate_until')
  ((empty)) && say "$task: $empty answers failed and were scored as empty ones: its score is worth nothing"
  ((rc == 0 && empty == 0)) || failed+=("$task")
done
say "$((${#mine[@]} - ${#failed[@]})) of ${#mine[@]} tasks evaluated, results in $out${failed:+; failed: ${failed[*]}}"
((${#failed[@]} == 0))
