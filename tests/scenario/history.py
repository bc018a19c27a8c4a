"""CDNOW's purchase history as a shop would have it: orders in the order of time."""

import hashlib
from datetime import date


def orders(path):
    """Returns the orders, oldest first, as objects that the shop's API gives.

    The history is sorted by customer; orders of one day keep the order of their lines. An order's
    number is its place in time, counted from 1.
    """
    lines = path.read_text(encoding="ascii").splitlines()[1:]
    rows = [line.split() for line in lines if line.strip()]
    rows.sort(key=lambda row: row[1])
    return [
        {
            "number": number,
            "customer": customer,
            "ordered_on": date(int(day[:4]), int(day[4:6]), int(day[6:])).isoformat(),
            "cds": int(cds),
            "dollars": dollars,
        }
        for number, (customer, day, cds, dollars) in enumerate(rows, start=1)
    ]


def draw(seed, number):
    """Returns a number from 0 to 99 that looks random and is the same every time."""
    digest = hashlib.sha256(f"{seed}/{number}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % 100
