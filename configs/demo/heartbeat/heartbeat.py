"""Says how the machine is."""

import os
import shutil


def init_context(context):
    context.user_data.beats = 0


def handler(context, event):
    context.user_data.beats += 1
    load = os.getloadavg()[0]
    free = shutil.disk_usage("/").free // 2**20
    return f"beat {context.user_data.beats}, load {load:.2f}, {free} MiB free"
