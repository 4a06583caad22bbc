/* The worker's side against whatever stands in its event ring: it takes events and answers, as a
 * worker in C does. */
#include "fuzz_segment.h"

#define MOST_RECORDS 64

static void take_texts(const struct ring_record *record, uint32_t head_bytes)
{
	const unsigned char *texts = record->bytes + CHANNEL_RECORD_HEADER + CHANNEL_EVENT_HEAD;
	unsigned char head[CHANNEL_EVENT_HEAD];
	uint32_t limit = head_bytes - CHANNEL_EVENT_HEAD, begin = 0, end;

	/* The ends were checked once, and may have changed since: a worker copies the head, then
	 * looks at its copy. */
	memcpy(head, record->bytes + CHANNEL_RECORD_HEADER, sizeof head);
	for (unsigned part = 0; part < CHANNEL_TEXT_PARTS; part++, begin = end) {
		struct record_bytes text;

		memcpy(&end, head + 36 + 4 * part, 4);
		if (end < begin || end > limit)
			return;
		text = (struct record_bytes){(const char *)texts + begin, end - begin};
		if (part < CHANNEL_TEXT_PARTS - 2)
			read_part(record, text);
		else
			read_pairs(record, text);
	}
}

static void take_event(const struct ring_record *record)
{
	struct record_bytes body;
	uint32_t head_bytes;

	if (!record_event_head(record, &head_bytes, &body))
		return;
	other_side_acts();
	must(head_bytes >= CHANNEL_EVENT_HEAD && CHANNEL_RECORD_HEADER + head_bytes <= record->size,
	     "a head longer than its record");
	take_texts(record, head_bytes);
	if (body.data != NULL)
		read_part(record, body);
}

static void take_control(const struct ring_record *record)
{
	struct record_parts parts;

	if (record_parts(record, &parts) && parts.body.data != NULL)
		read_part(record, parts.body);
}

static void answer(uint64_t id)
{
	static const char bytes[900];
	struct record_bytes text = {bytes, 10}, none = {bytes, 0},
	                    body = {bytes, (uint32_t)(id * 131 % 900)};
	struct record_reply reply = {.status = 200};

	record_put_reply(&fuzz_out, CHANNEL_REPLY, 0, id, &reply, text, none, body, 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct ring_record record;

	if (!fuzz_open(data, size))
		return 0;
	for (unsigned number = 0; number < MOST_RECORDS; number++) {
		if (ring_peek(&fuzz_in, &record) != RING_OK)
			break;
		check_record(&record);
		if (record.kind == CHANNEL_EVENT)
			take_event(&record);
		else
			take_control(&record);
		answer(number);
		ring_release(&fuzz_in, record.size);
	}
	fuzz_close();
	return 0;
}
