#!/usr/bin/env bash
# Installs the clients that tests/clients runs: kokoro-onnx and sherpa-onnx into .venv-clients, kokoro-js and
# transformers.js into tests/clients/node/node_modules. Does nothing when both already hold what is pinned here and in
# package-lock.json.
# PYTHON names the interpreter (3.10 to 3.13) for the environment; the default is the project's own.
set -euo pipefail
cd "$(dirname "$0")/.."

venv=.venv-clients
node_dir=tests/clients/node
requirements=(
  kokoro-onnx==0.6.1
  sherpa-onnx==2.0.1
  onnxruntime==1.31.1
  numpy==2.3.5
  espeakng-loader==0.2.4
  phonemizer==3.4.0
  soundfile==0.14.0
)

fail() {
  echo "setup_clients: $1" >&2
  exit 1
}

python=${PYTHON:-.venv/bin/python}
command -v "$python" > /dev/null || python=python3
command -v "$python" > /dev/null || fail "no Python found: set PYTHON"

python_stamp=$(printf '%s\n' "${requirements[@]}" "$("$python" --version)")
if [[ "$(cat "$venv/stamp" 2> /dev/null)" != "$python_stamp" ]]; then
  "$python" -m venv --clear "$venv"
  "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "${requirements[@]}"
  echo "$python_stamp" > "$venv/stamp"
fi

if ! command -v npm > /dev/null; then
  [[ $(id -u) == 0 ]] && command -v apt-get > /dev/null || fail "npm is missing: install Node.js 20.11 or newer"
  apt-get update -q && apt-get install -q -y nodejs npm
fi
# Older ones lack import.meta.dirname, by which kokoro-js finds its voices.
node -e 'const [a, b] = process.versions.node.split("."); process.exit(a > 20 || (a == 20 && b >= 11) ? 0 : 1)' ||
  fail "Node.js $(node --version) is too old: kokoro-js needs 20.11 or newer"

node_stamp=$(cat "$node_dir/package.json" "$node_dir/package-lock.json" && node --version)
if [[ "$(cat "$node_dir/node_modules/stamp" 2> /dev/null)" != "$node_stamp" ]]; then
  # The packages carry their CPU binaries; onnxruntime-node's install script would only fetch a CUDA build.
  npm ci --prefix "$node_dir" --ignore-scripts --no-audit --no-fund --loglevel=error
  echo "$node_stamp" > "$node_dir/node_modules/stamp"
fi
