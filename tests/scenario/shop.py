#!/usr/bin/env python3
"""A shop with a paginated API and webhooks, which replays CDNOW's purchases.

    shop.py RAW ADDRESS_FILE [FIRST_DAY]

Serves until it is killed. It has the orders since FIRST_DAY, such as 1998-06-01, or all of them. They
become visible as they are released, oldest first.

    GET  /orders?after=NUMBER&limit=N    released orders with a greater number, oldest first:
                                         {"orders": [...], "more": bool}
    POST /admin/release                  {"count": N}: that many more; {}: all
    POST /admin/push                     releases the rest and sends each of its orders as a webhook:
                                         {"url", "secret", "connections", "lose_percent",
                                         "repeat_percent", "seed"}; answers at once
    GET  /admin/push                     {"sent", "lost", "repeated", "retried", "done"}

A webhook is signed as Standard Webhooks 1.0 has it. It is repeated until it is answered 2xx; of
those that are lost, none is ever sent.
"""

import base64
import hashlib
import hmac
import http.client
import itertools
import json
import sys
import threading
import time
from datetime import date
from pathlib import Path
from urllib.parse import urlsplit

from history import draw, orders
from service import serve

MOST_PER_PAGE = 1000


class Shop:
    def __init__(self, path, since):
        self.orders = orders(path, since)
        self.before = self.orders[0]["number"] - 1
        self.released = 0
        self.push = {"sent": 0, "lost": 0, "repeated": 0, "retried": 0, "done": False}
        self.lock = threading.Lock()

    def page(self, query, _body, _headers):
        after, limit = int(query.get("after") or 0), int(query.get("limit") or 100)
        after = max(after - self.before, 0)
        end = min(after + min(limit, MOST_PER_PAGE), self.released)
        return 200, {}, {"orders": self.orders[after:end], "more": end < self.released}

    def release(self, _query, body, _headers):
        asked = json.loads(body or b"{}")
        with self.lock:
            count = asked.get("count", len(self.orders))
            self.released = min(self.released + count, len(self.orders))
            return 200, {}, {"released": self.released, "of": len(self.orders)}

    def start_push(self, _query, body, _headers):
        asked = json.loads(body)
        with self.lock:
            first, self.released = self.released, len(self.orders)
        threading.Thread(target=self.send_all, args=(asked, first), daemon=True).start()
        return 202, {}, {}

    def push_state(self, _query, _body, _headers):
        with self.lock:
            return 200, {}, dict(self.push)

    def count(self, name):
        with self.lock:
            self.push[name] += 1

    def send_all(self, asked, first):
        lose, repeat = asked.get("lose_percent", 0), asked.get("repeat_percent", 0)
        seed = asked.get("seed", 1)
        places = itertools.count(first)

        def work():
            sender = Sender(asked["url"], asked["secret"], lambda: self.count("retried"))
            while (place := next(places)) < len(self.orders):
                order = self.orders[place]
                if draw(seed, order["number"]) < lose:
                    self.count("lost")
                    continue
                sender.send(order)
                self.count("sent")
                if draw(f"{seed} repeat", order["number"]) < repeat:
                    sender.send(order)
                    self.count("repeated")

        workers = [threading.Thread(target=work) for _ in range(asked.get("connections", 16))]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        with self.lock:
            self.push["done"] = True


class Sender:
    """One connection that webhooks are sent over."""

    def __init__(self, url, secret, retried):
        self.url = urlsplit(url)
        self.secret = base64.b64decode(secret.removeprefix("whsec_"))
        self.retried = retried
        self.connection = None

    def send(self, order):
        """Sends one order until it is answered 2xx."""
        body = json.dumps({"type": "order.placed", "data": order}).encode()
        delivery = f"order-{order['number']}"
        pause = 0.05
        while not self.is_accepted(delivery, body):
            self.retried()
            time.sleep(pause)
            pause = min(pause * 2, 1)

    def is_accepted(self, delivery, body):
        moment = str(int(time.time()))
        content = f"{delivery}.{moment}.".encode() + body
        signature = base64.b64encode(hmac.new(self.secret, content, hashlib.sha256).digest())
        headers = {
            "Content-Type": "application/json",
            "webhook-id": delivery,
            "webhook-timestamp": moment,
            "webhook-signature": f"v1,{signature.decode()}",
        }
        try:
            if self.connection is None:
                self.connection = http.client.HTTPConnection(
                    self.url.hostname, self.url.port, timeout=30)
            self.connection.request("POST", self.url.path, body, headers)
            answer = self.connection.getresponse()
            answer.read()
            return 200 <= answer.status < 300
        except (OSError, http.client.HTTPException):
            # The server may have taken it, and may be away: only a 2xx counts.
            if self.connection is not None:
                self.connection.close()
            self.connection = None
            return False


def main(raw, address_file, first_day=None):
    shop = Shop(Path(raw), date.fromisoformat(first_day) if first_day else date.min)
    serve({
        ("GET", "/orders"): shop.page,
        ("POST", "/admin/release"): shop.release,
        ("POST", "/admin/push"): shop.start_push,
        ("GET", "/admin/push"): shop.push_state,
    }, address_file)


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    main(*sys.argv[1:])
