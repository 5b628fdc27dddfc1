#!/usr/bin/env bash
# How fast does a GPU learn?  One command: looks for a GPU, puts wheels that travelled along in place, checks parity of the
# levers on the card, then measures against KAITO's path (and TRL where it is installed). Ends within nine minutes.
#
#     benchmarks/tune_gpu.sh [ARGUMENTS OF tune_gpu.py]
#
# PYTHON is an interpreter that has torch, transformers and peft. On a machine without a package index, WHEELS names a folder
# of what it lacks: bitsandbytes, structlog, rich, pydantic, pytest; liger-kernel and trl with datasets are optional.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
if ! nvidia-smi -L 2>/dev/null | grep -q '^GPU'; then
  echo "There is no NVIDIA GPU here: nothing was measured."
  exit 0
fi
if [ -d "${WHEELS:-wheels}" ]; then
  beside=$(mktemp -d)
  "$python" -m pip install --quiet --no-index --no-deps --target "$beside" "${WHEELS:-wheels}"/*.whl
  export PYTHONPATH="$beside${PYTHONPATH:+:$PYTHONPATH}"
fi
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" HF_HUB_OFFLINE=1
timeout 120 "$python" -m pytest -q -p no:randomly tests/contract/test_levers.py -k gpu || {
  echo "The levers do not compute the same on this card: nothing was measured."
  exit 1
}
timeout 400 "$python" benchmarks/tune_gpu.py "$@"
