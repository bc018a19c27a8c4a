#!/usr/bin/env bash
# Upgrades a system at work from the last release, or from another revision, and takes it back.
# Usage: upgrade.sh [REVISION]
set -euo pipefail

from=${1:-$(git describe --tags --abbrev=0 --match 'v*' 2>/dev/null || true)}
if [ -z "$from" ]; then
    echo "upgrade: there is no release yet; name what to upgrade from: make upgrade FROM=REVISION"
    exit
fi
revision=$(git rev-parse --verify --quiet "$from^{commit}") || {
    echo "upgrade: there is no revision $from; fetch the tags and the history, or name another one" >&2
    exit 1
}
tree=.tools/previous/$revision
if [ ! -x "$tree/tributary" ]; then
    echo "upgrade: building $from"
    mkdir -p "$tree"
    git archive "$revision" | tar -x -C "$tree"
    CARGO_TARGET_DIR=$PWD/target/previous \
        cargo build --quiet --locked --package tributary --manifest-path "$tree/Cargo.toml"
    cp target/previous/debug/tributary "$tree/tributary"
fi
target/debug/upgrade "$tree/tributary"
