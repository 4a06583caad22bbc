"""Reads NMEA sentences such as $WIMTA,21.4,C*1C and refuses those whose checksum is wrong."""

from functools import reduce

NAMES = {"WIMTA": "air temperature", "WIMHU": "humidity", "WIMWV": "wind"}


def handler(context, event):
    sentence, _, checksum = event.body.decode().strip().lstrip("$").partition("*")
    if reduce(lambda sum_, char: sum_ ^ ord(char), sentence, 0) != int(checksum, 16):
        raise ValueError("wrong checksum: noise on the line")
    kind, *values = sentence.split(",")
    return f"{NAMES.get(kind, kind)}: {' '.join(values)}"
