"""Gets events by the batch and tells each caller its rank within it: the largest number is first."""

import nuclio_sdk


def handler(context, events):
    ranked = sorted(events, key=number, reverse=True)
    context.logger.info_with("ranked a batch", size=len(events))
    return [
        nuclio_sdk.Response(
            event_id=event.id,
            body={"rank": rank, "of": len(events), "number": number(event)},
            content_type="application/json",
        )
        for rank, event in enumerate(ranked, start=1)
    ]


def number(event):
    try:
        return float(event.body)
    except ValueError:
        return float("-inf")
