/* The processor's side against a hostile worker: it drains replies and puts events, as
 * ProcessorChannel does. */
#include "fuzz_segment.h"

#define MOST_RECORDS 64

static void take_apart(const struct ring_record *record)
{
	struct record_parts parts;

	check_record(record);
	other_side_acts();
	if (!record_parts(record, &parts))
		return;
	other_side_acts();
	read_part(record, parts.text);
	read_pairs(record, parts.headers);
	if (parts.body.data != NULL)
		read_part(record, parts.body);
	else
		must(record->flags & CHANNEL_LARGE, "no body though it is not apart");
}

static void put_event(uint64_t id)
{
	static const char bytes[700];
	struct record_bytes texts[CHANNEL_TEXT_PARTS], body = {bytes, (uint32_t)(id * 97 % 700)};
	struct record_event event = {.shard_id = -1};

	for (unsigned part = 0; part < CHANNEL_TEXT_PARTS; part++)
		texts[part] = (struct record_bytes){bytes, part};
	record_put_event(&fuzz_out, 0, id, &event, texts, body, 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct ring_record record;

	if (!fuzz_open(data, size))
		return 0;
	for (unsigned number = 0; number < MOST_RECORDS; number++) {
		if (ring_peek(&fuzz_in, &record) != RING_OK)
			break;
		take_apart(&record);
		ring_release(&fuzz_in, record.size);
		put_event(number);
	}
	fuzz_close();
	return 0;
}
