#!/usr/bin/env bash
# Refuses a change of proto/ that callers of the last release would not survive. Usage: breaking.sh BUF
set -euo pipefail

release=$(git describe --tags --abbrev=0 --match 'v*' 2>/dev/null || true)
if [ -z "$release" ]; then
    echo "proto: there is no release yet that could be broken"
    exit
fi
echo "proto: compared with $release"
"$1" breaking proto --against ".git#tag=$release,subdir=proto"
