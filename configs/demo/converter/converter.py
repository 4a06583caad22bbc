"""Turns degrees Celsius into Fahrenheit: GET /?celsius=21."""


def handler(context, event):
    celsius = event.fields.get("celsius")
    if celsius is None:
        return "hello! add ?celsius=21 to the address"
    try:
        return {"celsius": float(celsius), "fahrenheit": round(float(celsius) * 9 / 5 + 32, 1)}
    except ValueError:
        return 400, f"{celsius!r} is not a number"
