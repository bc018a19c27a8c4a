#!/usr/bin/env python3
"""An e-mail provider with a strict quota.

    provider.py LIMIT SECONDS ADDRESS_FILE [JOURNAL]

Serves until it is killed. It remembers in JOURNAL, a file of lines of key and customer, what it has
sent, or as long as it lives. It takes at most LIMIT calls in any SECONDS, by its own clock; what
is above is a violation, which it counts and answers 429.

    POST /coupons         {"customer": text}, with an Idempotency-Key: sends a coupon. A key that it
                          has seen before gets the same answer again and sends nothing.
    POST /admin/faults    {"statuses": [500, "hang up", ...]}: how the next calls fail, before anything
                          is sent; "sent, hang up" hangs up after the coupon is sent
    GET  /admin/report    {"coupons": {customer: number}, "calls", "violations", "repeats", "busiest"}

`busiest` is the greatest number of calls, violations included, that any window has seen.
"""

import collections
import json
import sys
import threading
import time

from service import serve


class Provider:
    def __init__(self, limit, seconds, journal):
        self.limit, self.seconds = limit, seconds
        self.arrivals = collections.deque()
        self.keys = {}
        self.coupons = collections.Counter()
        self.calls = self.violations = self.repeats = self.busiest = 0
        self.faults = collections.deque()
        self.lock = threading.Lock()
        self.journal = journal
        if journal is not None:
            journal.seek(0)
            for line in journal:
                self.remember(*line.split())

    def remember(self, key, customer):
        self.coupons[customer] += 1
        self.keys[key] = {"coupon": len(self.keys) + 1}

    def coupon(self, _query, body, headers):
        with self.lock:
            now = time.monotonic()
            while self.arrivals and self.arrivals[0] <= now - self.seconds:
                self.arrivals.popleft()
            self.arrivals.append(now)
            self.calls += 1
            self.busiest = max(self.busiest, len(self.arrivals))
            if len(self.arrivals) > self.limit:
                self.violations += 1
                return 429, {"Retry-After": "1"}, {"error": "over quota"}
            fault = self.faults.popleft() if self.faults else None
            if fault is not None and fault != "sent, hang up":
                if fault == "hang up":
                    raise ConnectionAbortedError
                return fault, {}, {"error": "a fault that was asked for"}
            key = headers.get("Idempotency-Key")
            if not key:
                return 400, {}, {"error": "no Idempotency-Key"}
            customer = json.loads(body)["customer"]
            if key in self.keys:
                self.repeats += 1
            else:
                self.remember(key, customer)
                if self.journal is not None:
                    print(key, customer, file=self.journal, flush=True)
            if fault is not None:
                raise ConnectionAbortedError
            return 200, {}, self.keys[key]

    def fail(self, _query, body, _headers):
        with self.lock:
            self.faults.extend(json.loads(body)["statuses"])
        return 200, {}, {}

    def report(self, _query, _body, _headers):
        with self.lock:
            return 200, {}, {
                "coupons": dict(self.coupons),
                "calls": self.calls,
                "violations": self.violations,
                "repeats": self.repeats,
                "busiest": self.busiest,
            }


def main(limit, seconds, address_file, journal=None):
    file = open(journal, "a+", encoding="utf-8") if journal else None
    provider = Provider(int(limit), float(seconds), file)
    serve({
        ("POST", "/coupons"): provider.coupon,
        ("POST", "/admin/faults"): provider.fail,
        ("GET", "/admin/report"): provider.report,
    }, address_file)


if __name__ == "__main__":
    if len(sys.argv) not in (4, 5):
        sys.exit(__doc__)
    main(*sys.argv[1:])
