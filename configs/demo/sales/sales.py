"""Adds up a CSV file of sales: product, pieces, price."""

import csv


def handler(context, event):
    rows = list(csv.DictReader(event.body.decode().splitlines()))
    total = sum(int(row["pieces"]) * float(row["price"]) for row in rows)
    best = max(rows, key=lambda row: int(row["pieces"]))
    return f"{len(rows)} rows, {total:.2f} in all, most sold: {best['product']}"
