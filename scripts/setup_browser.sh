#!/usr/bin/env bash
# Installs Chromium, in which tests/report opens reports, from Debian's packages. Does nothing when one is there.
set -euo pipefail

fail() {
  echo "setup_browser: $1" >&2
  exit 1
}

for name in chromium chromium-browser google-chrome; do
  command -v "$name" > /dev/null && exit 0
done
[[ $(id -u) == 0 ]] && command -v apt-get > /dev/null || fail "Chromium is missing: install it, or run this as root on Debian"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
export DEBIAN_FRONTEND=noninteractive
{ apt-get update -q && apt-get install -q -y --no-install-recommends chromium fonts-dejavu-core; } > "$log" 2>&1 ||
  fail "apt-get could not install Chromium: $(grep '^E:' "$log" | tail -1 || tail -1 "$log")"
chromium --version > /dev/null 2>&1 || fail "Chromium is installed and does not start"
