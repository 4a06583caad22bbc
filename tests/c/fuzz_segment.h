/* A hostile other side, from a fuzzer's bytes: what it wrote into the segment, and what it writes
 * while we read.
 *
 * Why: the side under test must never read outside its ring, crash or loop, whatever the other side
 * does at any moment. How: channel.c and record.c are included here with memcpy replaced, since
 * every read of a ring's bytes goes through it; after each such read the script in the input may
 * change bytes of the ring and of its control words. The rings are heap blocks of their own, so
 * that the address sanitizer sees one byte too many.
 *
 *   input   0  u32  position where reading starts
 *           4  u32  how far beyond it tail is
 *           8  u32  how far before our own tail the head of the ring we write to is
 *          12  u8   asleep flags: bit 0 of the ring we write to
 *          13  u8   steps of the script, n
 *          14  n x {u8 reads to let pass, u16 where, u8 new value}
 *           .       the ring's bytes from the start position on, wrapping
 */
#ifndef HEADRACE_FUZZ_SEGMENT_H
#define HEADRACE_FUZZ_SEGMENT_H

#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *hostile_memcpy(void *to, const void *from, size_t size);
#define memcpy hostile_memcpy
#ifndef CORE_CHANNEL /* a copy of the core with a fault in it, to show that the fuzzer finds it */
#define CORE_CHANNEL "../../shmem/channel.c"
#define CORE_RECORD "../../shmem/record.c"
#endif
#include CORE_CHANNEL
#include CORE_RECORD
#undef memcpy

#define FUZZ_RING 4096u
#define FUZZ_STEP 4u

static struct ring fuzz_in, fuzz_out;
static const uint8_t *fuzz_script;
static unsigned fuzz_steps, fuzz_countdown;
static volatile uint32_t fuzz_sum;

static void *own_block(size_t bytes)
{
	void *block = calloc(1, bytes);

	if (block == NULL)
		abort();
	return block;
}

static void ring_over(struct ring *ring)
{
	ring->control = own_block(sizeof *ring->control);
	ring->data = own_block(FUZZ_RING);
	ring->size = FUZZ_RING;
	ring->bell = -1; /* nobody to ring: EBADF, as after the other side's end */
}

/* One byte of the ring we read, of its tail, or of the head of the ring we write to. */
static void scribble(uint16_t where, uint8_t value)
{
	unsigned place = where % (FUZZ_RING + 8);
	unsigned char *target = fuzz_in.data + place;

	if (place >= FUZZ_RING + 4)
		target = (unsigned char *)&fuzz_out.control->head + (place - FUZZ_RING - 4);
	else if (place >= FUZZ_RING)
		target = (unsigned char *)&fuzz_in.control->tail + (place - FUZZ_RING);
	*target = value;
}

/* A read has been made: the other side may act now. */
static void other_side_acts(void)
{
	while (fuzz_steps > 0) {
		if (fuzz_countdown > 0) {
			fuzz_countdown--;
			return;
		}
		scribble((uint16_t)(fuzz_script[1] | fuzz_script[2] << 8), fuzz_script[3]);
		fuzz_script += FUZZ_STEP;
		fuzz_steps--;
		fuzz_countdown = fuzz_steps > 0 ? fuzz_script[0] : 0;
	}
}

static void *hostile_memcpy(void *to, const void *from, size_t size)
{
	const unsigned char *at = from;

	memcpy(to, from, size);
	if (at >= fuzz_in.data && at < fuzz_in.data + FUZZ_RING)
		other_side_acts();
	return to;
}

static uint32_t word(const uint8_t *data)
{
	uint32_t value;

	memcpy(&value, data, 4);
	return value;
}

/* 0 when there are too few bytes to say anything. */
static int fuzz_open(const uint8_t *data, size_t size)
{
	uint32_t start;

	if (size < 14 || size < 14u + FUZZ_STEP * data[13])
		return 0;
	ring_over(&fuzz_in);
	ring_over(&fuzz_out);
	start = word(data) & ~7u;
	fuzz_in.own = fuzz_in.seen = start;
	atomic_init(&fuzz_in.control->tail, start + word(data + 4));
	fuzz_out.own = fuzz_out.seen = start;
	atomic_init(&fuzz_out.control->head, start - word(data + 8));
	atomic_init(&fuzz_out.control->asleep, data[12] & 1u);
	fuzz_script = data + 14;
	fuzz_steps = data[13];
	fuzz_countdown = fuzz_steps > 0 ? fuzz_script[0] : 0;
	data += 14 + FUZZ_STEP * fuzz_steps;
	size -= 14 + FUZZ_STEP * (size_t)fuzz_steps;
	for (uint32_t index = 0; index < size && index < FUZZ_RING; index++)
		fuzz_in.data[(start + index) & (FUZZ_RING - 1)] = data[index];
	return 1;
}

static void fuzz_close(void)
{
	free(fuzz_in.control);
	free(fuzz_in.data);
	free(fuzz_out.control);
	free(fuzz_out.data);
}

static void must(int condition, const char *what)
{
	if (condition)
		return;
	fprintf(stderr, "broken promise: %s\n", what);
	abort();
}

/* The part lies inside its record; and each of its bytes can be read. */
static void read_part(const struct ring_record *record, struct record_bytes part)
{
	const unsigned char *bytes = (const unsigned char *)part.data;

	must(bytes >= record->bytes && bytes <= record->bytes + record->size &&
	         part.size <= (size_t)(record->bytes + record->size - bytes),
	     "a part outside its record");
	for (uint32_t index = 0; index < part.size; index++)
		fuzz_sum += bytes[index];
}

static void read_pairs(const struct ring_record *record, struct record_bytes block)
{
	struct record_bytes name, value;
	uint32_t left = block.size;

	while (record_next_pair(&block, &name, &value) == 1) {
		read_part(record, name);
		read_part(record, value);
		must(block.size < left, "a block of pairs that does not shrink");
		left = block.size;
	}
}

static void check_record(const struct ring_record *record)
{
	must(record->bytes >= fuzz_in.data && record->size >= CHANNEL_RECORD_HEADER &&
	         record->bytes + record->size <= fuzz_in.data + FUZZ_RING,
	     "a record outside its ring");
}

#endif
