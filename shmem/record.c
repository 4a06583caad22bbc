/* Records: see record.h.  Heads are written with memcpy from little-endian hosts' own words; a
 * big-endian build is refused below rather than silently wrong. */
#include "record.h"

#include <string.h>

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "records are little-endian");

#define LARGEST_PART UINT32_C(0x3fffffff)

/* Copy one record into the ring: header, head, text parts one after the other, then the body at the
 * next multiple of 8. */
enum ring_status record_put(struct ring *ring, uint16_t kind, uint16_t flags, uint64_t id,
                            const void *head, uint32_t head_bytes, const struct record_bytes *texts,
                            uint32_t text_count, struct record_bytes body, int body_is_apart)
{
	uint64_t text_end = (uint64_t)CHANNEL_RECORD_HEADER + head_bytes;
	uint64_t total;
	uint32_t size;
	unsigned char *slot, *to;
	enum ring_status status;

	for (uint32_t part = 0; part < text_count; part++)
		text_end += texts[part].size;
	total = ring_align(text_end) + (body_is_apart ? 0 : ring_align(body.size));
	status = ring_reserve(ring, total, &slot);
	if (status != RING_OK)
		return status;

	size = (uint32_t)total;
	memcpy(slot, &size, 4);
	memcpy(slot + 4, &kind, 2);
	memcpy(slot + 6, &flags, 2);
	memcpy(slot + 8, &id, 8);
	memcpy(slot + CHANNEL_RECORD_HEADER, head, head_bytes);
	to = slot + CHANNEL_RECORD_HEADER + head_bytes;
	for (uint32_t part = 0; part < text_count; part++) {
		if (texts[part].size != 0)
			memcpy(to, texts[part].data, texts[part].size);
		to += texts[part].size;
	}
	if (!body_is_apart && body.size != 0)
		memcpy(slot + ring_align(text_end), body.data, body.size);
	return ring_publish(ring, size);
}

enum ring_status record_put_event(struct ring *ring, uint16_t flags, uint64_t id,
                                  const struct record_event *event,
                                  const struct record_bytes *texts, struct record_bytes body,
                                  int body_is_apart)
{
	unsigned char head[CHANNEL_EVENT_HEAD];
	uint64_t end = 0;

	memcpy(head, &event->timestamp_ns, 8);
	memcpy(head + 8, &event->offset, 8);
	memcpy(head + 16, &event->shard_id, 4);
	memcpy(head + 20, &event->num_shards, 4);
	memcpy(head + 24, &body.size, 4);
	memcpy(head + 28, &event->header_count, 4);
	memcpy(head + 32, &event->field_count, 4);
	for (uint32_t part = 0; part < CHANNEL_TEXT_PARTS; part++) {
		uint32_t end32;

		end += texts[part].size;
		if (end > LARGEST_PART)
			return RING_TOO_BIG;
		end32 = (uint32_t)end;
		memcpy(head + 36 + 4 * part, &end32, 4);
	}
	return record_put(ring, CHANNEL_EVENT, flags, id, head, sizeof head, texts,
	                  CHANNEL_TEXT_PARTS, body, body_is_apart);
}

enum ring_status record_put_reply(struct ring *ring, uint16_t kind, uint16_t flags, uint64_t id,
                                  const struct record_reply *reply, struct record_bytes text,
                                  struct record_bytes headers, struct record_bytes body,
                                  int body_is_apart)
{
	unsigned char head[CHANNEL_REPLY_HEAD] = {0};
	const struct record_bytes texts[2] = {text, headers};

	memcpy(head, &reply->nanoseconds, 8);
	memcpy(head + 8, &reply->status, 4);
	memcpy(head + 12, &reply->header_count, 4);
	memcpy(head + 16, &text.size, 4);
	memcpy(head + 20, &headers.size, 4);
	memcpy(head + 24, &body.size, 4);
	return record_put(ring, kind, flags, id, head, sizeof head, texts, 2, body, body_is_apart);
}

static int in_record(const struct ring_record *record, uint64_t start, uint64_t size)
{
	return start + size <= record->size;
}

/* Where the head (with its texts) ends and the body lies.  0 when the numbers do not fit the
 * record. */
int record_event_head(const struct ring_record *record, uint32_t *head_bytes,
                      struct record_bytes *body)
{
	uint32_t text_end, previous = 0;
	uint64_t start = (uint64_t)CHANNEL_RECORD_HEADER + CHANNEL_EVENT_HEAD;

	if (!in_record(record, 0, start))
		return 0;
	for (uint32_t part = 0; part < CHANNEL_TEXT_PARTS; part++) {
		memcpy(&text_end, record->bytes + CHANNEL_RECORD_HEADER + 36 + 4 * part, 4);
		if (text_end < previous || !in_record(record, start, text_end))
			return 0;
		previous = text_end;
	}
	memcpy(&body->size, record->bytes + CHANNEL_RECORD_HEADER + 24, 4);
	*head_bytes = CHANNEL_EVENT_HEAD + previous;
	start = ring_align(start + previous);
	body->data = (const char *)record->bytes + start;
	if (record->flags & CHANNEL_LARGE)
		body->data = NULL;
	else if (!in_record(record, start, body->size))
		return 0;
	return 1;
}

/* Take a record from the worker apart.  0 when the numbers do not fit the record. */
int record_parts(const struct ring_record *record, struct record_parts *parts)
{
	const unsigned char *head = record->bytes + CHANNEL_RECORD_HEADER;
	uint64_t start = (uint64_t)CHANNEL_RECORD_HEADER + CHANNEL_REPLY_HEAD;

	if (!in_record(record, 0, start))
		return 0;
	memcpy(&parts->head.nanoseconds, head, 8);
	memcpy(&parts->head.status, head + 8, 4);
	memcpy(&parts->head.header_count, head + 12, 4);
	memcpy(&parts->text.size, head + 16, 4);
	memcpy(&parts->headers.size, head + 20, 4);
	memcpy(&parts->body.size, head + 24, 4);
	if (!in_record(record, start, (uint64_t)parts->text.size + parts->headers.size))
		return 0;
	parts->text.data = (const char *)record->bytes + start;
	parts->headers.data = parts->text.data + parts->text.size;
	start = ring_align(start + parts->text.size + parts->headers.size);
	parts->body.data = (const char *)record->bytes + start;
	if (record->flags & CHANNEL_LARGE)
		parts->body.data = NULL;
	else if (!in_record(record, start, parts->body.size))
		return 0;
	return 1;
}

/* The next name and value of a block of pairs; `rest` moves on.  1: there was one; 0: the end; -1:
 * it does not fit. */
int record_next_pair(struct record_bytes *rest, struct record_bytes *name,
                     struct record_bytes *value)
{
	if (rest->size == 0)
		return 0;
	if (rest->size < 8)
		return -1;
	memcpy(&name->size, rest->data, 4);
	memcpy(&value->size, rest->data + 4, 4);
	if ((uint64_t)name->size + value->size > rest->size - 8)
		return -1;
	name->data = rest->data + 8;
	value->data = name->data + name->size;
	rest->data = value->data + value->size;
	rest->size -= 8 + name->size + value->size;
	return 1;
}
