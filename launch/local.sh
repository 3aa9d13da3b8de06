#!/usr/bin/env bash
# Trains on this machine, with one process that uses all devices.
#
#   launch/local.sh [ARGUMENTS of python -m prerl_jax.launch]
#   launch/local.sh --config configs/smollm2_135m.py --workdir runs/smollm2
#
# Without arguments it trains the lab. If there is a .venv beside this folder, it is used.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
if [[ -f "$root/.venv/bin/activate" ]]; then
  # shellcheck source=/dev/null
  . "$root/.venv/bin/activate"
fi
if ! command -v python >/dev/null || ! python -c 'import prerl_jax, flax, orbax.checkpoint' 2>/dev/null; then
  echo "launch/local.sh: prerl_jax is not installed for $(command -v python || echo 'any python'):" \
    "python3 -m venv '$root/.venv' && '$root/.venv/bin/pip' install -e '$root'" >&2
  exit 1
fi
exec python -m prerl_jax.launch "$@"
