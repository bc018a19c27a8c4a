#!/usr/bin/env bash
# Generates a Python client from the contracts and lets it do a round through the API.
# Usage: run.sh ADDRESS PIPELINE_FILE, such as `run.sh 127.0.0.1:7000 customers.yaml`.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../../.." && pwd)
tools=$root/.tools/python-client
stamp=$tools/requirements.txt

mkdir -p "$tools"
# Two tests may come here at the same time; the second one waits for the first one to end.
exec 9>"$tools/lock"
flock 9

if ! cmp --silent "$here/requirements.txt" "$stamp"; then
    python3 -m venv --clear "$tools/venv"
    "$tools/venv/bin/pip" install --quiet --disable-pip-version-check --only-binary :all: \
        --requirement "$here/requirements.txt"
    cp "$here/requirements.txt" "$stamp"
fi

rm -rf "$tools/generated"
mkdir "$tools/generated"
(
    cd "$root/proto"
    find externalscaler tributary -name '*.proto' -print0 | xargs -0 "$tools/venv/bin/python" -m grpc_tools.protoc \
        --proto_path=. --python_out="$tools/generated" --grpc_python_out="$tools/generated"
)
PYTHONPATH=$tools/generated exec "$tools/venv/bin/python" "$here/client.py" "$@"
