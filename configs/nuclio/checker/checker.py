"""Checks a reading of a thermometer, sent as JSON, and says what is wrong with it."""

import nuclio_sdk


def check(context: nuclio_sdk.Context, event: nuclio_sdk.Event):
    faults = list(find_faults(event.body))
    if faults:
        context.logger.warn_with("refused a reading", faults=len(faults), first=faults[0])
    else:
        context.logger.info_with("accepted a reading", celsius=event.body["celsius"])
    return context.Response(
        headers={"X-Faults": str(len(faults)), "X-Request": event.get_header("x-request") or "none"},
        body={"accepted": not faults, "faults": faults},
        status_code=422 if faults else 200,
    )


def find_faults(reading):
    if not isinstance(reading, dict):
        yield "send a JSON object with content type application/json"
        return
    if not isinstance(reading.get("sensor"), str):
        yield "sensor is missing"
    celsius = reading.get("celsius")
    if not isinstance(celsius, int | float):
        yield "celsius is not a number"
    elif not -273.15 <= celsius <= 1000:
        yield "celsius is out of range"
