/* What the stress programs share: records of random size that carry their number and a pattern. */
#ifndef HEADRACE_STRESS_H
#define HEADRACE_STRESS_H

#define _GNU_SOURCE
#include "channel.h"
#include "record.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static uint32_t next_random(uint32_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 17;
	*state ^= *state << 5;
	return *state;
}

static void fail(const char *what, uint64_t number)
{
	fprintf(stderr, "%s at record %llu\n", what, (unsigned long long)number);
	_exit(1);
}

static void pause_sometimes(uint32_t *state)
{
	struct timespec moment = {0, 0};

	if (next_random(state) % 64 != 0)
		return;
	moment.tv_nsec = (long)(next_random(state) % 50000);
	nanosleep(&moment, NULL);
}

static uint32_t fill(char *body, uint64_t number, uint32_t *state)
{
	uint32_t size = next_random(state) % 900;

	memset(body, (int)(number & 0xff), size);
	return size;
}

static void put(struct ring *ring, uint64_t number, uint32_t *state)
{
	char body[900];
	struct record_bytes text = {"t", 1}, none = {"", 0},
	                    bytes = {body, fill(body, number, state)};
	struct record_reply head = {.nanoseconds = number, .status = 200};

	for (uint32_t attempt = 0;; attempt++) {
		enum ring_status status =
		    record_put_reply(ring, CHANNEL_REPLY, 0, number, &head, text, none, bytes, 0);

		if (status == RING_OK)
			return;
		if (status != RING_FULL || ring_wait_room(ring, attempt) == RING_CLOSED)
			fail("cannot put", number);
	}
}

static void check(const struct ring_record *record, uint64_t number)
{
	struct record_parts parts;

	if (record->id != number || !record_parts(record, &parts) ||
	    parts.head.nanoseconds != number)
		fail("wrong record", number);
	for (uint32_t index = 0; index < parts.body.size; index++)
		if ((unsigned char)parts.body.data[index] != (number & 0xff))
			fail("torn record", number);
}

static void take(struct ring *ring, struct ring_spin *spin, uint64_t number)
{
	struct ring_record record;
	enum ring_status status;

	while ((status = ring_peek(ring, &record)) == RING_EMPTY)
		if (ring_wait(ring, spin, -1) == RING_CLOSED)
			fail("closed", number);
	if (status != RING_OK)
		fail("broken", number);
	check(&record, number);
	ring_release(ring, record.size);
}

#endif
