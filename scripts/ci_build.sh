#!/usr/bin/env bash
# Builds the plan PLAN in a CI job, and shows its report there whatever became of it; ends with the build's exit code.
# ONLY, OUT, REPORT, STORE and PUBLISH are the inputs of action.yml.
set -uo pipefail

report=${REPORT:-report}
mkdir -p "$report" || exit 4
arguments=(build "${PLAN:?}" --out "${OUT:-release}" --report "$report" --log "$report/log.jsonl")
[[ -z ${ONLY:-} ]] || arguments+=(--only "$ONLY")
[[ -z ${STORE:-} ]] || arguments+=(--store "$STORE")
[[ ${PUBLISH:-false} != true ]] || arguments+=(--publish)

jtts-export "${arguments[@]}"
code=$?
[[ ! -f $report/report.md ]] || cat "$report/report.md" >> "${GITHUB_STEP_SUMMARY:-/dev/null}"
echo "exit-code=$code" >> "${GITHUB_OUTPUT:-/dev/null}"
exit "$code"
