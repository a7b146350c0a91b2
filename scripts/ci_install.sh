#!/usr/bin/env bash
# Installs jtts-export from the folder TOOL, with EXTRAS, into a virtual environment of the job, and puts it on its PATH.
# torch goes first and exactly: a looser request fetches gigabytes of CUDA packages. PIP_ARGS goes to that install.
set -euo pipefail

venv=${RUNNER_TEMP:?}/jtts-export
"${PYTHON:-python}" -m venv "$venv"
pip=("$venv/bin/python" -m pip --disable-pip-version-check --quiet install)
read -ra extra <<< "${PIP_ARGS:-}"
"${pip[@]}" "${extra[@]}" torch==2.13.0 numpy==2.3.5
"${pip[@]}" "${TOOL:?}[${EXTRAS:-phonemes}]"
echo "$venv/bin" >> "${GITHUB_PATH:-/dev/null}"
