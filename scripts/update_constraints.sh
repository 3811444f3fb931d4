#!/usr/bin/env bash
# Resolves the newest versions for Python 3.10 to 3.12 and writes both constraints files.
# torch stays where pyproject.toml holds it; no index address is written.
set -euo pipefail
cd "$(dirname "$0")/.."

uv=.venv/bin/uv
[ -x "$uv" ] || .venv/bin/pip install -q --disable-pip-version-check uv

compile() {
    "$uv" pip compile --universal --python-version 3.10 --upgrade --quiet \
        --no-emit-index-url --no-annotate --no-header "$@"
}

# Keeps the comment at the head of the file, replaces the rest.
rewrite() {
    local file=$1 resolved=$2
    { grep '^#' "$file"; cat "$resolved"; } > "$file.new"
    mv "$file.new" "$file"
    printf 'wrote %s (%d packages)\n' "$file" "$(grep -vc '^#' "$file")"
}

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

compile pyproject.toml --all-extras \
    -o "$scratch/main.txt"
compile scripts/requirements-lint.txt -o "$scratch/lint.txt"
rewrite constraints.txt "$scratch/main.txt"
rewrite constraints-lint.txt "$scratch/lint.txt"
