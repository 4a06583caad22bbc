"""Asks the function `reverser` to do the work, and shows what it was asked and what it said.

The event that came in is changed and sent on, as callers of functions do; what goes wrong is raised.
"""


def handler(context, event):
    text = event.body.decode()
    if not text:
        raise ValueError("nothing to reverse")
    target = event.get_header("x-target") or "reverser"
    event.method = "POST"
    event.path = "/reversed"
    event.headers = {"X-From": "caller"}
    event.body = text.upper()
    answer = context.platform.call_function(target, event)
    if answer.status_code != 200:
        raise RuntimeError(f"{target} answered {answer.status_code}")
    return {"sent": event.body, "received": answer.body.decode()}
