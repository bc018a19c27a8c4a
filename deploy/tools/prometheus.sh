#!/usr/bin/env bash
# Puts prometheus and promtool, of the machine or of its distribution, into a folder.
# Usage: prometheus.sh FOLDER
set -euo pipefail

folder=$1
mkdir -p "$folder"
package=$(mktemp -d)
trap 'rm -rf "$package"' EXIT
if ! command -v prometheus promtool >"$package/found" || [ "$(wc -l <"$package/found")" != 2 ]; then
    # A fresh machine knows no packages yet.
    (cd "$package" && { apt-get download --quiet=2 prometheus 2>/dev/null ||
        { apt-get update --quiet=2 && apt-get download --quiet=2 prometheus; }; }) ||
        { echo "prometheus is neither here nor a package that can be had: install it" >&2; exit 1; }
    dpkg --extract "$package"/prometheus_*.deb "$package"
    printf '%s\n' "$package/usr/bin/prometheus" "$package/usr/bin/promtool" >"$package/found"
fi
xargs cp --target-directory "$folder" <"$package/found"
