"""POST a number: it is taken at once and worked in by a task in the background. GET: what came of it so far."""

import asyncio


async def init_context(context):
    context.user_data.count = 0
    context.user_data.total = 0.0
    context.user_data.tasks = set()


async def handler(context, event):
    if event.method == "GET":
        count = context.user_data.count
        return {"count": count, "average": context.user_data.total / count if count else None}
    task = asyncio.create_task(work_in(context, float(event.body)))
    context.user_data.tasks.add(task)
    task.add_done_callback(context.user_data.tasks.discard)
    return 202, "taken"


async def work_in(context, reading):
    await asyncio.sleep(0.02)  # it goes on while the worker waits for the next event
    context.user_data.count += 1
    context.user_data.total += reading
    context.logger.info_with("worked in", reading=reading, count=context.user_data.count)
