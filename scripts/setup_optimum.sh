#!/usr/bin/env bash
# Installs the peer that bench/optimum_export.py runs, optimum-onnx, into .venv-optimum: its transformers is older
# than the project's own. Does nothing when that environment already holds what is pinned here.
# PYTHON names the interpreter (3.11 or newer) for the environment; the default is the project's own.
set -euo pipefail
cd "$(dirname "$0")/.."

venv=.venv-optimum
# torch first and exactly: a looser request fetches gigabytes of CUDA packages.
torch=(
  torch==2.13.0
  numpy==2.3.5
)
requirements=(
  optimum-onnx==0.1.0
  optimum==2.1.0
  transformers==4.57.6
  onnx==1.23.2
  onnxruntime==1.31.1
  sentencepiece==0.2.3
)

fail() {
  echo "setup_optimum: $1" >&2
  exit 1
}

unset PIP_CONSTRAINT # the Makefile's, of the project's own environment

python=${PYTHON:-.venv/bin/python}
command -v "$python" > /dev/null || python=python3
command -v "$python" > /dev/null || fail "no Python found: set PYTHON"

stamp=$(printf '%s\n' "${torch[@]}" "${requirements[@]}" "$("$python" --version)")
if [[ "$(cat "$venv/stamp" 2> /dev/null)" != "$stamp" ]]; then
  "$python" -m venv --clear "$venv"
  pip=("$venv/bin/python" -m pip --quiet --disable-pip-version-check)
  "${pip[@]}" install "${torch[@]}"
  "${pip[@]}" install "${torch[@]}" "${requirements[@]}"
  echo "$stamp" > "$venv/stamp"
fi
