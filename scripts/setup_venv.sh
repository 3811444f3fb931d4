#!/usr/bin/env bash
# Makes or updates a virtual environment with pinned dependencies; used by the Makefile.
#   scripts/setup_venv.sh PYTHON VENV STAMP PIP_ARGUMENT...
# The stamp is an empty file whose name carries a hash of what was installed: when it is there,
# make does not call this script.
set -euo pipefail

python=$1
venv=$2
stamp=$3
shift 3

fail() {
    printf '\nerror: %s\n' "$*" >&2
    exit 1
}

[ -n "$python" ] || fail "no Python 3.10, 3.11 or 3.12 found on the PATH.
Install one (Debian, Ubuntu: apt-get install python3 python3-venv) or name it: make PYTHON=/path/to/python3.11"
"$python" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] < (3, 13))' \
    || fail "$("$python" --version) is not supported; Python 3.10, 3.11 or 3.12 is needed: make PYTHON=/path/to/python3.11"

version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
if [ -x "$venv/bin/python" ] \
    && [ "$("$venv/bin/python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)" != "$version" ]; then
    printf '%s was made by another Python; making it anew\n' "$venv"
    rm -rf "$venv"
fi
if [ ! -x "$venv/bin/pip" ]; then
    printf 'Making %s with Python %s\n' "$venv" "$version"
    rm -rf "$venv"
    "$python" -m venv "$venv" || {
        rm -rf "$venv"
        fail "this Python cannot make a virtual environment; on Debian and Ubuntu: apt-get install python3-venv"
    }
fi

log="$venv/install.log"
printf 'Installing pinned dependencies into %s (one to three minutes, once)\n' "$venv"
started=$SECONDS
packages=0
# pip's own output is one line a package and goes to the log; here, a line now and then.
set +e
"$venv/bin/pip" install --disable-pip-version-check --no-input "$@" 2>&1 \
    | tee "$log" \
    | while IFS= read -r line; do
        case $line in
            Collecting* | Processing*)
                packages=$((packages + 1))
                if [ $((packages % 20)) -eq 0 ]; then
                    printf '  %3d packages found, %3d s\n' "$packages" "$((SECONDS - started))"
                fi
                ;;
            *Downloading*torch-*) printf '  downloading torch, %3d s\n' "$((SECONDS - started))" ;;
            "Installing collected"*)
                printf '  %3d packages to write, %3d s\n' "$packages" "$((SECONDS - started))"
                ;;
        esac
    done
status=${PIPESTATUS[0]}
set -e
if [ "$status" -ne 0 ]; then
    tail -n 25 "$log" >&2
    fail "pip could not install the dependencies; the whole output is in $log"
fi
rm -f "${stamp%-*}"-*
touch "$stamp"
printf 'Installed in %d s\n' "$((SECONDS - started))"
