#!/usr/bin/env python3
"""Compares the demo's store with the raw purchase history.

    figures.py FOLDER

Prints a few rows of the store and each figure as the store, or the e-mail provider, and as the raw
history give it. Waits a moment for what is still on its way. Ends with an error where they differ.
"""

import sqlite3
import sys
import time
from collections import Counter
from decimal import Decimal
from pathlib import Path


def raw_figures(path):
    lines = path.read_text(encoding="ascii").splitlines()[1:]
    purchases = [line.split() for line in lines if line.strip()]
    orders_of = Counter(customer for customer, *_ in purchases)
    loyal = sum(1 for orders in orders_of.values() if orders >= 10)
    return {
        "orders": len(purchases),
        "total in dollars": sum(Decimal(dollars) for *_, dollars in purchases),
        "customers": len(orders_of),
        "customers with ten orders or more": loyal,
        "coupons sent": loyal,
        "customers with a coupon": loyal,
    }


def figures(store, journal):
    def one(query):
        return store.execute(query).fetchone()[0]

    coupons = [line.split()[1] for line in journal.read_text(encoding="utf-8").splitlines()]
    totals = (Decimal(str(total)) for (total,) in store.execute("select total from orders"))
    return {
        "orders": one("select count(*) from orders"),
        "total in dollars": sum(totals),
        "customers": one("select count(*) from customers"),
        "customers with ten orders or more": one(
            "select count(*) from (select 1 from customers join orders using (customer_id) "
            "group by customer_id having count(*) >= 10)"
        ),
        "coupons sent": len(coupons),
        "customers with a coupon": len(set(coupons)),
    }


def print_rows(store):
    cursor = store.execute(
        "select customer_id, first_name, last_name, city, count(*) as orders, "
        "min(ordered_on) as first_order, max(ordered_on) as last_order "
        "from customers join orders using (customer_id) "
        "group by customer_id order by orders desc, customer_id limit 5"
    )
    heading = [column[0] for column in cursor.description]
    rows = [heading] + [[str(value) for value in row] for row in cursor]
    widths = [max(len(row[i]) for row in rows) for i in range(len(heading))]
    for row in rows:
        print("  " + "  ".join(value.ljust(width) for value, width in zip(row, widths)).rstrip())


def main(folder):
    folder = Path(folder)
    expected = raw_figures(folder / "CDNOW_master.txt")
    store = sqlite3.connect(f"file:{folder / 'store.db'}?mode=ro", uri=True)
    journal = folder / "coupons.txt"
    patience = time.monotonic() + 30
    while (found := figures(store, journal)) != expected and time.monotonic() < patience:
        time.sleep(0.2)
    print("\nThe customers who ordered most, joined from all sources:")
    print_rows(store)
    print("\nThe store against the raw history:")
    for name, value in expected.items():
        verdict = "equal" if found[name] == value else f"DIFFERENT, the raw history has {value:,}"
        print(f"  {name}: {found[name]:,} ({verdict})")
    return 0 if found == expected else 1


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1]))
