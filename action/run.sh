#!/usr/bin/env bash
# Runs the command under rano, and writes annotations, a summary and SARIF.
set -euo pipefail

database=${INPUT_DATABASE:-$RUNNER_TEMP/rano.sqlite}
sarif=${INPUT_SARIF:-$RUNNER_TEMP/rano.sarif}
judge=(--policy "$INPUT_POLICY" --fail-on "$INPUT_FAIL_ON" --sqlite "$database" --summary "$GITHUB_STEP_SUMMARY")
command=(bash -eo pipefail -c "$INPUT_RUN")

case "$INPUT_SUDO" in
true) as_root=yes ;;
false) as_root=no ;;
*) if [ "$(id -u)" -ne 0 ] && sudo -n true 2>/dev/null; then as_root=yes; else as_root=no; fi ;;
esac

code=0
if [ "$as_root" = yes ]; then
    # Root is rano's alone: the command gets back the user, the groups and the path that it has without it.
    as_user=(setpriv --reuid "$(id -u)" --regid "$(id -g)" --init-groups env "PATH=$PATH" "HOME=$HOME")
    sudo -n --preserve-env "$RANO" run "${judge[@]}" -- "${as_user[@]}" "${command[@]}" || code=$?
else
    "$RANO" run "${judge[@]}" -- "${command[@]}" || code=$?
fi

{
    echo "exit-code=$code"
    echo "database=$database"
    echo "sarif=$sarif"
} >>"$GITHUB_OUTPUT"

# The same session once more, in the shapes that the service shows. The run has decided already; but where this cannot
# read what it needs, nothing may pass.
check=("$RANO" check "$INPUT_POLICY" --fail-on "$INPUT_FAIL_ON" --sqlite "$database" --latest)
checked=0
"${check[@]}" --format github || checked=$?
"${check[@]}" --format sarif >"$sarif" || checked=$?
if [ "$checked" -gt 1 ] && [ "$code" -eq 0 ]; then code=$checked; fi
exit "$code"
