"""Switches the heating of a room on below 19.5 °C and off above 20.5 °C; in between it stays as it is."""


def init_context(context):
    context.user_data.heated = set()


def handler(context, event):
    room = event.topic.split("/")[1]
    celsius = float(event.body)
    heated = context.user_data.heated
    if celsius < 19.5:
        heated.add(room)
    elif celsius > 20.5:
        heated.discard(room)
    return f"{room} {celsius:.1f} °C, heating {'on' if room in heated else 'off'}"
