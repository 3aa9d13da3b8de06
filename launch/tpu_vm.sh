#!/usr/bin/env bash
# Trains on every worker of a Cloud TPU slice. It copies the committed tree to each worker, installs it there, starts
# the same command on all of them and follows their logs; jax.distributed finds the other workers by itself. Training
# goes on when this script ends. The same command again follows a running training, or resumes one that has ended.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: launch/tpu_vm.sh NAME ZONE [ARGUMENTS of python -m prerl_jax.launch]
       launch/tpu_vm.sh NAME ZONE --stop

  launch/tpu_vm.sh my-v5e-32 us-west4-a --config configs/dsrl_qwen3_4b_math.py --workdir /mnt/shared/dsrl

NAME and ZONE name an existing TPU VM. --workdir is a folder that every worker sees under the same absolute path (a
Filestore share, a bucket mounted with gcsfuse). Paths of models and data are absolute, or relative to ~/prerl_jax on
the workers. Neither Ctrl-C nor a lost connection ends the training; --stop does. Workers log to ~/prerl_jax/run.log.
Environment: PROJECT (Google Cloud project; that of gcloud by default), PYTHON (on the workers; python3.11 by default).
TEXT
}

fail() {
  echo "launch/tpu_vm.sh: $*" >&2
  exit 2
}

# Whether the training that run.pid names is running. It is text, because a worker needs it before it has this file.
running='grep -qa tpu_vm.sh "/proc/$(cat run.pid 2>/dev/null)/cmdline" 2>/dev/null'

from_here() {
  case "${1:-}" in -h | --help) usage && exit 0 ;; esac
  [[ $# -ge 2 ]] || { usage >&2 && exit 2; }
  local name=$1 zone=$2
  shift 2
  [[ "$name" != -* && "$zone" =~ ^[a-z]+-[a-z]+[0-9]+-[a-z]$ ]] || fail "NAME ZONE come first, got '$name' '$zone'"
  [[ "$*" == --stop || " $* " == *" --workdir"[=\ ]/* ]] ||
    fail "give --workdir /SHARED/FOLDER: an absolute path that every worker sees"
  command -v gcloud >/dev/null || fail "gcloud is not installed: https://cloud.google.com/sdk/docs/install"

  local root tree arguments command where=(--zone "$zone" --worker=all ${PROJECT:+--project "$PROJECT"})
  if [[ "$*" == --stop ]]; then
    command="cd prerl_jax && if $running; then kill -- -\$(cat run.pid); else echo 'nothing is under way'; fi"
    gcloud compute tpus tpu-vm ssh "$name" "${where[@]}" --command "$command"
    return
  fi
  root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
  tree=$(mktemp -d)
  # shellcheck disable=SC2064
  trap "rm -rf '$tree'" EXIT
  if [[ -n "$(git -C "$root" status --porcelain)" ]]; then
    echo "launch/tpu_vm.sh: uncommitted changes are not copied; the workers get" \
      "$(git -C "$root" log -1 --format='%h (%s)')" >&2
  fi
  git -C "$root" archive --format=tar.gz -o "$tree/prerl_jax.tgz" HEAD
  gcloud compute tpus tpu-vm scp "$tree/prerl_jax.tgz" "$name:" "${where[@]}"
  arguments=$(printf '%q ' "$@")
  # A running training keeps its files, because Python may still import some of them.
  command="mkdir -p prerl_jax && cd prerl_jax && { $running || { rm -rf prerl_jax configs && tar -xzf ../prerl_jax.tgz; }; }"
  command+=" && PYTHON=$(printf '%q' "${PYTHON:-python3.11}") bash launch/tpu_vm.sh --on-worker $arguments"
  gcloud compute tpus tpu-vm ssh "$name" "${where[@]}" --command "$command"
}

install() {
  if [[ ! -x .venv/bin/python ]]; then
    command -v "$PYTHON" >/dev/null || fail "no $PYTHON on $(hostname): sudo apt-get install python3.11 python3.11-venv"
    "$PYTHON" -m venv .venv
  fi
  # shellcheck source=/dev/null
  . .venv/bin/activate
  pip install --quiet -e '.[tpu]'
}

# On a worker: starts the training in its own session, unless it is running already, and follows it to its end.
on_worker() {
  local line
  line=$(printf '%q ' "$@")
  if ! eval "$running"; then
    install
    rm -f run.status
    : >run.log # created here, because it is followed before the training opens it
    # shellcheck disable=SC2016
    setsid nohup bash -c 'bash launch/tpu_vm.sh --train "$@"; echo $? >run.status' tpu_vm.sh "$@" \
      </dev/null >>run.log 2>&1 &
    echo $! >run.pid
    echo "$line" >run.line
  elif [[ "$line" != "$(cat run.line)" ]]; then
    fail "$(hostname) is training with other arguments ($(cat run.line)): end that training with --stop"
  fi
  tail --pid="$(cat run.pid)" -n +1 -f run.log
  exit "$(cat run.status 2>/dev/null || echo 1)"
}

case "${1:-}" in
  --on-worker | --train) cd "$(dirname "${BASH_SOURCE[0]}")/.." ;;
  *)
    from_here "$@"
    exit
    ;;
esac
role=$1
shift
[[ "$role" == --train ]] || on_worker "$@"
# shellcheck source=/dev/null
. .venv/bin/activate
exec python -m prerl_jax.launch "$@"
