#!/usr/bin/env bash
# Trains on every worker of a Cloud TPU slice: copies the committed tree to each, installs it there, and starts the same
# line on all of them; jax.distributed finds the other workers by itself. The same command again resumes.
set -euo pipefail

usage() {
  cat <<'TEXT'
usage: launch/tpu_vm.sh NAME ZONE [ARGUMENTS of python -m prerl_jax.launch]

  launch/tpu_vm.sh my-v5e-32 us-west4-a --config configs/dsrl_qwen3_4b_math.py --workdir /mnt/shared/dsrl

NAME and ZONE are those of an existing TPU VM. --workdir is a folder that every worker sees under the same absolute path
(a Filestore share, a bucket mounted with gcsfuse). Paths of models and data are relative to ~/prerl_jax on the workers,
or absolute.
Environment: PROJECT (Google Cloud project; gcloud's own by default), PYTHON (on the workers; python3.11 by default).
TEXT
}

fail() {
  echo "launch/tpu_vm.sh: $*" >&2
  exit 2
}

from_here() {
  case "${1:-}" in -h | --help) usage && exit 0 ;; esac
  [[ $# -ge 2 ]] || { usage >&2 && exit 2; }
  local name=$1 zone=$2
  shift 2
  [[ "$name" != -* && "$zone" =~ ^[a-z]+-[a-z]+[0-9]+-[a-z]$ ]] || fail "NAME ZONE come first, got '$name' '$zone'"
  [[ " $* " == *" --workdir"[=\ ]/* ]] || fail "give --workdir /SHARED/FOLDER: absolute, and seen by every worker"
  command -v gcloud >/dev/null || fail "gcloud is not installed: https://cloud.google.com/sdk/docs/install"

  local root tree arguments command where=(--zone "$zone" --worker=all ${PROJECT:+--project "$PROJECT"})
  root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
  tree=$(mktemp -d)
  # shellcheck disable=SC2064
  trap "rm -rf '$tree'" EXIT
  git -C "$root" archive --format=tar.gz -o "$tree/prerl_jax.tgz" HEAD
  gcloud compute tpus tpu-vm scp "$tree/prerl_jax.tgz" "$name:" "${where[@]}"
  arguments=$(printf '%q ' "$@")
  command="mkdir -p prerl_jax && rm -rf prerl_jax/prerl_jax prerl_jax/configs && tar -xzf prerl_jax.tgz -C prerl_jax"
  command+=" && PYTHON=$(printf '%q' "${PYTHON:-python3.11}") bash prerl_jax/launch/tpu_vm.sh --on-worker $arguments"
  gcloud compute tpus tpu-vm ssh "$name" "${where[@]}" --command "$command"
}

if [[ "${1:-}" != --on-worker ]]; then
  from_here "$@"
  exit
fi
shift

# From here on this is one of the workers.
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if [[ ! -x .venv/bin/python ]]; then
  command -v "$PYTHON" >/dev/null || fail "no $PYTHON on $(hostname): sudo apt-get install python3.11 python3.11-venv"
  "$PYTHON" -m venv .venv
fi
# shellcheck source=/dev/null
. .venv/bin/activate
pip install --quiet -e '.[tpu]'
exec python -m prerl_jax.launch "$@"
