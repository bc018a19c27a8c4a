#!/usr/bin/env python3
"""Has the demo's shop send its orders as webhooks, and waits until they are accepted.

    push.py SHOP HOOK SECRET_FILE
"""

import json
import sys
import time
import urllib.request
from pathlib import Path


def ask(url, body=None):
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(url, data) as answer:
        return json.load(answer)


def main(shop, hook, secret_file):
    secret = Path(secret_file).read_text(encoding="ascii").strip()
    ask(f"{shop}/admin/push", {"url": hook, "secret": secret, "lose_percent": 5})
    while not (state := ask(f"{shop}/admin/push"))["done"]:
        time.sleep(0.1)
    print(f"{state['sent']} webhooks were accepted, {state['lost']} were lost.")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
