#!/usr/bin/env bash
# Checks the dependencies against the RustSec advisories in the folder that ADVISORY_DB names: a clone
# of the database, or its files. Without one there is nothing to check against, which is no failure.
# Usage: advisories.sh CARGO_DENY, from the root of the tree.
set -euo pipefail

deny=$1
database=${ADVISORY_DB:-}
# cargo-deny looks for a clone here, under a name with a hash of the database's address.
clone=.tools/advisories/advisory-db-3157b0e258782691

if [ ! -d "$database/crates" ]; then
    echo "advisories: skipped, ADVISORY_DB does not name a folder with the RustSec advisory database"
    exit 0
fi

rm -rf "$clone"
mkdir -p "$clone"
cp -r "$database/." "$clone"
rm -rf "$clone/.git"
git -C "$clone" init --quiet
git -C "$clone" add --all --force
git -C "$clone" -c user.name=advisories -c user.email=advisories@localhost -c commit.gpgsign=false \
    commit --quiet --message "Advisories as given"
touch "$clone/.git/FETCH_HEAD"

newest=$(grep -rhoE '^date = "[0-9-]+"' "$clone/crates" | sort | tail -n 1)
echo "advisories: the newest is of ${newest#date = }"
# Offline, because it would fetch the database; it still wants the manifests of all dependencies.
cargo fetch --locked --quiet
"$deny" --locked --offline check --hide-inclusion-graph advisories
