#!/usr/bin/env bash
# Finds rano, or installs it: the release of the action's tag, else from the action's own source.
set -euo pipefail

if [ -n "${INPUT_RANO:-}" ]; then
    rano=$INPUT_RANO
else
    prefix="$RUNNER_TEMP/rano-installed"
    options=(--prefix "$prefix")
    case "${ACTION_REF:-}" in
    v*.*.*) options+=(--version "$ACTION_REF" --owner "${ACTION_REPOSITORY%%/*}" --repo "${ACTION_REPOSITORY##*/}") ;;
    *) options+=(--from-source) ;;
    esac
    (cd "$GITHUB_ACTION_PATH" && ./install.sh "${options[@]}")
    rano="$prefix/bin/rano"
fi
"$rano" --version
echo "rano=$rano" >>"$GITHUB_OUTPUT"
