/* Putting records together and taking them apart, without Python: what lies inside a slot.  See
 * PROTOCOL.md.
 *
 * Gathering comes first (pointers and lengths into memory the caller holds), then one reserve, one
 * copy, one publish: nothing in between can fail, so a half-written record can not exist. */
#ifndef HEADRACE_RECORD_H
#define HEADRACE_RECORD_H

#include "channel.h"

struct record_bytes {
	const char *data;
	uint32_t size;
};

/* The numbers of an EVENT head. */
struct record_event {
	int64_t timestamp_ns;
	int64_t offset;
	int32_t shard_id;
	uint32_t num_shards;
	uint32_t header_count;
	uint32_t field_count;
};

/* The numbers of a REPLY or LOG head: status and handler's nanoseconds, or level and wall-clock
 * time. */
struct record_reply {
	uint64_t nanoseconds;
	uint32_t status;
	uint32_t header_count;
};

/* A REPLY, LOG or control record taken apart; every part has been checked to lie inside the record.
 */
struct record_parts {
	struct record_reply head;
	struct record_bytes text;
	struct record_bytes headers;
	struct record_bytes body; /* data is NULL when the body is in a segment of its own */
};

enum ring_status record_put(struct ring *ring, uint16_t kind, uint16_t flags, uint64_t id,
                            const void *head, uint32_t head_bytes, const struct record_bytes *texts,
                            uint32_t text_count, struct record_bytes body, int body_is_apart);
enum ring_status record_put_event(struct ring *ring, uint16_t flags, uint64_t id,
                                  const struct record_event *event,
                                  const struct record_bytes *texts, struct record_bytes body,
                                  int body_is_apart);
enum ring_status record_put_reply(struct ring *ring, uint16_t kind, uint16_t flags, uint64_t id,
                                  const struct record_reply *reply, struct record_bytes text,
                                  struct record_bytes headers, struct record_bytes body,
                                  int body_is_apart);
int record_event_head(const struct ring_record *record, uint32_t *head_bytes,
                      struct record_bytes *body);
int record_parts(const struct ring_record *record, struct record_parts *parts);
int record_next_pair(struct record_bytes *rest, struct record_bytes *name,
                     struct record_bytes *value);

#endif
