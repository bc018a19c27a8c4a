"""CDNOW's purchase history as a shop would have it: orders in the order of time."""

import hashlib
from datetime import date


def orders(path, since=date.min):
    """Returns the orders since a day, oldest first, as objects that the shop's API gives.

    The history is sorted by customer; orders of one day keep the order of their lines. An order's
    number is its place in time, counted from 1; its receipt is its line in the history.
    """
    lines = enumerate(path.read_text(encoding="ascii").splitlines(), start=1)
    rows = [(receipt, *line.split()) for receipt, line in lines if receipt > 1 and line.strip()]
    rows.sort(key=lambda row: row[2])
    found = []
    for number, (receipt, customer, day, cds, dollars) in enumerate(rows, start=1):
        ordered_on = date(int(day[:4]), int(day[4:6]), int(day[6:]))
        if ordered_on >= since:
            found.append({
                "number": number,
                "receipt": receipt,
                "customer": customer,
                "ordered_on": ordered_on.isoformat(),
                "cds": int(cds),
                "dollars": dollars,
            })
    return found


def draw(seed, number):
    """Returns a number from 0 to 99 that looks random and is the same every time."""
    digest = hashlib.sha256(f"{seed}/{number}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % 100
