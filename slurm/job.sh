# shellcheck shell=bash
# What every script here does around its one command, inside the batch job: the site, the preflight, one task a GPU, and
# what follows when they end. Sourced, not run. docs/cluster.md has the picture.
#
#   AMALIA_ROOT      this repository, where sbatch was not called in it
#   AMALIA_SITE      a file of slurm/sites; else it is guessed
#   AMALIA_PREFLIGHT off: no `amalia doctor --cluster` before the ranks
#   AMALIA_ATTEMPTS  starts in a row that may save nothing new before the job gives up (3)
#   AMALIA_IMAGE     the container image, for sites that have one

set -uo pipefail
stopping=0 step_pid=''

say() { echo "[job] $*" | tee -a "${log:-/dev/null}"; }

refuse() { # MESSAGE: nothing was started, and starting again would change nothing
  echo "error: $*" | tee -a "${log:-/dev/null}" >&2
  exit 2
}

find_site() {
  local guess=bare
  if [[ ${BSC_MACHINE:-} == mn5* ]]; then
    guess=marenostrum5
  elif srun --help 2>/dev/null | grep -q -- --container-image; then
    guess=dgx
  fi
  site=${AMALIA_SITE:-$guess}
  [[ -f $AMALIA_ROOT/slurm/sites/$site.sh ]] || refuse "AMALIA_SITE=$site: slurm/sites has $(cd "$AMALIA_ROOT/slurm/sites" && echo *.sh | sed 's/\.sh//g')"
  # What a site may set: options of srun, what stands before the command, the commands, the cluster of conf/.
  # shellcheck disable=SC2034  # site_python: of slurm/evaluate.sh
  site_srun=() site_prefix=() site_amalia=(amalia) site_python=(python) site_cluster=''
  # shellcheck source=/dev/null
  source "$AMALIA_ROOT/slurm/sites/$site.sh"
}

value_of() { # KEY WORD...: what the last KEY=... among the words says
  local key=$1 word found=''
  shift
  for word; do [[ $word == "$key="* ]] && found=${word#*=}; done
  echo "$found"
}

with_defaults() { # KEY=VALUE... -- WORD...: sets words to the defaults that the user did not give, and the user's
  local -a defaults=()
  while [[ $1 != -- ]]; do defaults+=("$1") && shift; done
  shift
  [[ -n $site_cluster ]] && defaults+=("cluster=$site_cluster")
  # The layout that was made for this job's shape, where there is one: gpus128_node8, gpus128_node4, ...
  local layout=gpus${SLURM_NTASKS}_node$((SLURM_NTASKS / SLURM_JOB_NUM_NODES))
  if [[ -f $AMALIA_ROOT/conf/parallel/$layout.yaml ]]; then
    defaults+=("parallel=$layout")
  elif [[ $* != *parallel* ]]; then
    say "no layout conf/parallel/$layout.yaml for this job's shape: every GPU holds a whole model, unless you give parallel=..."
  fi
  words=()
  local word
  for word in "${defaults[@]}"; do [[ -n $(value_of "${word%%=*}" "$@") ]] || words+=("$word"); done
  words+=("$@")
}

meeting_point() { # where rank 0 listens; another port at every start, so that a lost start's ranks cannot join this one
  local first
  first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
  if ! getent hosts "$first" >/dev/null; then # names that only Slurm knows
    first=$(scontrol show node "$first" | sed -n 's/.*NodeAddr=\([^ ]*\).*/\1/p')
  fi
  export MASTER_ADDR=$first MASTER_PORT=$((20000 + (SLURM_JOB_ID * 11 + attempt) % 10000))
}

saved_step() { cat "$run_dir/checkpoints/latest_checkpointed_iteration.txt" 2>/dev/null || echo 0; }

begin() { # FOLDER: the logs, the book of attempts, the signal before the limit
  run_dir=$1
  [[ -n $run_dir ]] || refuse "no run_dir=... among the words: add it"
  mkdir -p "$run_dir/logs" || refuse "run_dir $run_dir cannot be written: choose another"
  log=$run_dir/logs/console.log book=$run_dir/logs/attempts.txt
  attempt=${SLURM_RESTART_COUNT:-0} begin_step=$(saved_step)
  echo "$SLURM_JOB_ID $attempt $begin_step $(date +%FT%T) $SLURM_JOB_NODELIST" >>"$book"
  # shellcheck disable=SC2034  # of the scripts beside this one: what libraries say while they are imported
  rank_logs=(--error="$run_dir/logs/rank_%t.err" --open-mode=append)
  trap stop USR1
  meeting_point
  export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1} OMP_NUM_THREADS=${OMP_NUM_THREADS:-4}
  say "job $SLURM_JOB_ID, start $((attempt + 1)), on $SLURM_JOB_NODELIST ($site), after step $begin_step"
}

stop() { # Slurm's signal before the limit, or `scancel --batch --signal=USR1`
  stopping=1
  say "asked to stop: the ranks save a checkpoint after their step"
  [[ -n $step_pid ]] && kill -USR1 "$step_pid"
}

in_step() { # OPTION... -- COMMAND...: srun it, show what it says, and return its exit code in rc
  local -a options=()
  while [[ $1 != -- ]]; do options+=("$1") && shift; done
  shift
  local tail_pid
  step_from=$(($(wc -c <"$log" 2>/dev/null || echo 0) + 1))
  touch "$log"
  ((stopping)) && rc=75 && return
  srun --kill-on-bad-exit=1 "${site_srun[@]}" "${options[@]}" "${site_prefix[@]}" "$@" >>"$log" 2>&1 &
  step_pid=$!
  tail -c "+$step_from" -f --pid="$step_pid" -s 0.2 "$log" &
  tail_pid=$!
  while true; do # a signal ends wait, not the step
    wait "$step_pid"
    rc=$?
    kill -0 "$step_pid" 2>/dev/null || break
  done
  ((rc > 128)) && { wait "$step_pid" 2>/dev/null && rc=0 || rc=$?; }
  step_pid=''
  wait "$tail_pid"
}

preflight() { # WORD...: one look at the words and files for all ranks, then at the nodes
  in_step --nodes=1 --ntasks=1 -- "${site_amalia[@]}" train --check "launch.ranks=$SLURM_NTASKS" "$@"
  ((rc == 0)) || return
  [[ ${AMALIA_PREFLIGHT:-on} == off ]] && return
  in_step -- "${site_amalia[@]}" doctor --cluster --run-dir "$run_dir"
}

first_failure() { # the task that ended the step. srun names tasks as their ends reach it, not as they happened, so that
  # who lost a peer (76) or was ended by srun itself (Terminated) comes after who did not.
  local failures not
  failures=$(tail -c "+$step_from" "$log" | grep -E '^srun: error: [^ ]+: tasks? [0-9,-]+: ' | sed 's/^srun: error: //')
  for not in 'exit code 76$|: Terminated$' ': Terminated$' '^$'; do
    grep -v -m1 -E "$not" <<<"$failures" && return
  done
}

is_current() { # neither cancelled nor, after the loss of a node, replaced by a later start
  local job
  job=$(scontrol show job "$SLURM_JOB_ID")
  [[ $job == *"JobState=RUNNING "* && $job == *" Restarts=$attempt "* ]]
}

starts_without_progress() { # of this job, the last ones in a row that began at the step that is saved now
  local step
  step=$(saved_step)
  tac "$book" | awk -v job="$SLURM_JOB_ID" -v step="$step" '$1 != job || $3 != step { exit } { n++ } END { print n + 0 }'
}

excluded_with() { # NODE: the nodes to exclude from now on, or nothing where too few would be left
  local nodes total
  nodes=$(scontrol show job "$SLURM_JOB_ID" | sed -n 's/.*ExcNodeList=\([^ ]*\).*/\1/p')
  [[ $nodes == '(null)' ]] && nodes=''
  nodes=${nodes:+$nodes,}$1
  total=$(scontrol show partition "$SLURM_JOB_PARTITION" | sed -n 's/.*TotalNodes=\([0-9]*\).*/\1/p')
  (($(scontrol show hostnames "$nodes" | sort -u | wc -l) + SLURM_JOB_NUM_NODES <= ${total:-0})) && echo "$nodes"
}

requeue() { # [NODE]: again, from the checkpoint, without NODE
  local nodes=''
  is_current || { say "start $((attempt + 1)) was cancelled or replaced: nothing to do"; exit 1; }
  trap '' TERM CONT # the requeue sends them to this script, which has a node to exclude
  if ! scontrol requeue "$SLURM_JOB_ID"; then
    say "Slurm does not requeue here: submit the same command again, it goes on after step $(saved_step)"
    exit 1
  fi
  [[ -n ${1:-} ]] && nodes=$(excluded_with "$1")
  if [[ -n $nodes ]] && scontrol update "JobId=$SLURM_JOB_ID" "ExcNodeList=$nodes"; then
    say "excluded from now on: $nodes"
  elif [[ -n ${1:-} ]]; then
    say "$1 is not excluded: too few nodes would be left"
  fi
  say "requeued: goes on after step $(saved_step)"
  exit 0
}

finish() { # after the last step of this start: done, stopped, refused or broken
  local first node=''
  ((rc == 0)) && { say "finished at step $(saved_step)"; exit 0; }
  first=$(first_failure)
  if ((stopping)) || [[ $first == *"exit code 75" ]]; then
    say "stopped by a signal, step $(saved_step) is saved"
  elif [[ $first == *"exit code 2" ]] || { ((rc == 2)) && [[ -z $first ]]; }; then
    say "refused; not requeued, the same command would end so again"
    exit 2
  else
    say "start $((attempt + 1)) failed: ${first:-srun ended with code $rc}"
    # The message once more, where it is read; of a task that was killed there is none, only its peers complain.
    [[ $first == *"exit code"* ]] && tail -c "+$step_from" "$log" | grep -m1 '^error: '
    # Where everybody only lost somebody, no node is to blame.
    [[ $first != *"exit code 76" && $first =~ ^([A-Za-z0-9._-]+):\ task ]] && node=${BASH_REMATCH[1]}
  fi
  if (($(starts_without_progress) >= ${AMALIA_ATTEMPTS:-3})); then
    say "given up: $(starts_without_progress) starts in a row saved nothing new after step $(saved_step)"
    exit 1
  fi
  requeue "$node"
}
