/* Decodes segment images with the C core: what waits in each ring, a line a record.
 *
 *   decode_segment FILE...    per file "FILE", then "mismatch", or per ring lines "RING kind flags
 * id size" and "RING end" or "RING broken". Positions are read from the image: a reader that begins
 * in the middle.
 */
#include "record.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int fits(const struct ring_record *record)
{
	struct record_parts parts;
	struct record_bytes body;
	uint32_t head_bytes;

	if (record->kind == CHANNEL_EVENT)
		return record_event_head(record, &head_bytes, &body);
	return record_parts(record, &parts);
}

static void decode_ring(const char *name, struct ring *ring)
{
	struct ring_record record;
	enum ring_status status;

	ring->own = ring->seen = atomic_load(&ring->control->head);
	while ((status = ring_peek(ring, &record)) == RING_OK && fits(&record)) {
		printf("%s %u %u %" PRIu64 " %u\n", name, record.kind, record.flags, record.id,
		       record.size);
		ring_release(ring, record.size);
	}
	printf("%s %s\n", name, status == RING_EMPTY ? "end" : "broken");
}

static void decode(const char *path)
{
	struct ring events, replies;
	size_t size = 0, room = 1 << 20;
	void *image = aligned_alloc(64, room);
	FILE *file = fopen(path, "rb");

	if (file == NULL || image == NULL) {
		perror(path);
		exit(1);
	}
	size = fread(image, 1, room, file);
	fclose(file);
	printf("%s\n", path);
	if (channel_open(image, size, &events, &replies) != RING_OK) {
		printf("mismatch\n");
	} else {
		decode_ring("events", &events);
		decode_ring("replies", &replies);
	}
	free(image);
}

int main(int count, char **paths)
{
	for (int index = 1; index < count; index++)
		decode(paths[index]);
	return 0;
}
