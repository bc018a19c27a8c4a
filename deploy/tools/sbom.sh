#!/usr/bin/env bash
# Writes what the binary is made of, as CycloneDX, and checks it against the schema.
# Usage: sbom.sh VENV FILE
set -euo pipefail

venv=$1
file=$2
[ -x "$venv/bin/cargo-cyclonedx" ] || cargo install --quiet --locked --root "$venv" cargo-cyclonedx@0.5.7
[ -x "$venv/bin/python" ] || python3 -m venv "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check 'cyclonedx-python-lib[json-validation]==11.12.0'
PATH="$venv/bin:$PATH" cargo cyclonedx --manifest-path crates/tributary/Cargo.toml --format json \
    --override-filename sbom
mkdir -p "$(dirname "$file")"
mv crates/tributary/sbom.json "$file"
# It describes every crate of the workspace; the binary's is the one that is wanted.
rm -f crates/*/sbom.json tests/sbom.json
"$venv/bin/python" - "$file" <<'PYTHON'
import json
import sys

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

text = open(sys.argv[1]).read()
bom = json.loads(text)
error = JsonStrictValidator(SchemaVersion.from_version(bom["specVersion"])).validate_str(text)
if error:
    sys.exit(f"{sys.argv[1]} does not fit the schema: {error}")
print(f"{sys.argv[1]}: CycloneDX {bom['specVersion']}, {len(bom['components'])} components")
PYTHON
