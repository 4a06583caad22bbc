/* The ring and its waking.  See channel.h for the layout and PROTOCOL.md for the contract.
 *
 * Each atomic carries its argument: its order, its pair, and what breaks without it. */
#define _GNU_SOURCE /* ppoll */
#include "channel.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

uint64_t channel_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static int is_ring_size(uint32_t bytes)
{
	return bytes >= CHANNEL_MIN_RING && bytes <= CHANNEL_MAX_RING && (bytes & (bytes - 1)) == 0;
}

uint32_t channel_segment_bytes(uint32_t event_bytes, uint32_t reply_bytes)
{
	return CHANNEL_HEADER_BYTES + event_bytes + reply_bytes;
}

/* Lay out an empty channel in zeroed memory.  Processor only, before the worker is started: no
 * order needed, starting a process is one. */
enum ring_status channel_format(void *segment, size_t bytes, uint32_t event_bytes,
                                uint32_t reply_bytes, uint32_t processor_pid, uint64_t salt)
{
	struct channel_header *header = segment;

	if (!is_ring_size(event_bytes) || !is_ring_size(reply_bytes) ||
	    bytes < channel_segment_bytes(event_bytes, reply_bytes))
		return RING_MISMATCH;
	memset(segment, 0, sizeof *header);
	header->abi = CHANNEL_ABI;
	header->header_bytes = CHANNEL_HEADER_BYTES;
	header->event_bytes = event_bytes;
	header->reply_bytes = reply_bytes;
	header->processor_pid = processor_pid;
	header->salt = salt;
	header->magic = CHANNEL_MAGIC;
	return RING_OK;
}

static void ring_open(struct ring *ring, struct ring_control *control, unsigned char *data,
                      uint32_t size)
{
	ring->control = control;
	ring->data = data;
	ring->size = size;
	ring->own = 0;
	ring->seen = 0;
	ring->bell = -1;
}

/* Check the identity page and give a view of both rings, positions at the start.  The caller sets
 * the bells. */
enum ring_status channel_open(void *segment, size_t bytes, struct ring *events,
                              struct ring *replies)
{
	struct channel_header *header = segment;
	uint32_t event_bytes, reply_bytes;

	if (bytes < CHANNEL_HEADER_BYTES || header->magic != CHANNEL_MAGIC ||
	    header->abi != CHANNEL_ABI)
		return RING_MISMATCH;
	event_bytes = header->event_bytes;
	reply_bytes = header->reply_bytes;
	if (header->header_bytes != CHANNEL_HEADER_BYTES || !is_ring_size(event_bytes) ||
	    !is_ring_size(reply_bytes) || bytes < channel_segment_bytes(event_bytes, reply_bytes))
		return RING_MISMATCH;
	ring_open(events, &header->events, (unsigned char *)segment + CHANNEL_HEADER_BYTES,
	          event_bytes);
	ring_open(replies, &header->replies, events->data + event_bytes, reply_bytes);
	return RING_OK;
}

/* Producer: look at how far the consumer has given bytes back. */
static enum ring_status refresh_head(struct ring *ring)
{
	/* acquire, pairs with the release of head in ring_release(): whoever sees the new head
	 * knows the consumer has read all it wanted from the bytes before it.  Without it we may
	 * overwrite a slot that is being read. */
	uint32_t head = atomic_load_explicit(&ring->control->head, memory_order_acquire);

	if (ring->own - head > ring->size || (head & 7u) != 0)
		return RING_BROKEN; /* given back what was never published */
	ring->seen = head;
	return RING_OK;
}

/* Producer: find room for a record of `bytes`, never split at the wrap.  The slot stays ours until
 * ring_publish; reserving again without publishing gives the same slot. */
enum ring_status ring_reserve(struct ring *ring, uint64_t bytes, unsigned char **slot)
{
	uint64_t need = ring_align(bytes);
	uint32_t index = ring->own & (ring->size - 1);
	uint32_t to_end = ring->size - index;
	uint64_t with_pad = to_end < need ? to_end + need : need;
	uint32_t pad;

	if (need > ring->size / 4)
		return RING_TOO_BIG;
	if (ring->size - (ring->own - ring->seen) < with_pad) {
		enum ring_status status = refresh_head(ring);
		if (status != RING_OK)
			return status;
		if (ring->size - (ring->own - ring->seen) < with_pad)
			return RING_FULL;
	}
	if (to_end < need) {
		/* Positions are multiples of 8, so a pad always has room for its size, kind and
		 * flags. It is published together with the record behind it: nobody sees the new
		 * tail before ring_publish. */
		pad = to_end;
		memcpy(ring->data + index, &pad, sizeof pad);
		memset(ring->data + index + 4, 0, 4);
		ring->own += to_end;
		index = 0;
	}
	*slot = ring->data + index;
	return RING_OK;
}

static enum ring_status ring_bell(int bell)
{
	/* The pipe's write end does not block: a full pipe holds bytes already, so the wake-up is
	 * certain. */
	while (write(bell, "", 1) < 0) {
		if (errno == EAGAIN)
			return RING_OK;
		if (errno != EINTR)
			return RING_CLOSED; /* EPIPE: nobody holds the other end */
	}
	return RING_OK;
}

/* Producer: make the reserved slot visible to the consumer, and wake it if it said it sleeps. */
enum ring_status ring_publish(struct ring *ring, uint32_t bytes)
{
	ring->own += (uint32_t)ring_align(bytes);

	/* release, pairs with the acquire of tail in ring_peek(): whoever sees the new tail sees
	 * every byte we put in the slot.  Without it the consumer may read bytes that are still on
	 * their way. */
	atomic_store_explicit(&ring->control->tail, ring->own, memory_order_release);

	/* The other half is in ring_sleep(): we store tail, then load asleep; it stores asleep,
	 * then loads tail.  Release and acquire let both loads pass both stores, and then each
	 * misses the other's: we ring nobody, it sleeps on a full ring.  A full fence between store
	 * and load on both sides forbids exactly that. */
	atomic_thread_fence(memory_order_seq_cst);
	if (atomic_load_explicit(&ring->control->asleep, memory_order_relaxed) == 0)
		return RING_OK;

	/* exchange, so that of several who see the flag one rings.  relaxed: the byte through the
	 * kernel orders the rest. */
	if (atomic_exchange_explicit(&ring->control->asleep, 0, memory_order_relaxed) == 0)
		return RING_OK;
	return ring_bell(ring->bell);
}

static int has_record(struct ring *ring)
{
	/* acquire, pairs with the release of tail in ring_publish(). */
	if (ring->seen == ring->own)
		ring->seen = atomic_load_explicit(&ring->control->tail, memory_order_acquire);
	return ring->seen != ring->own;
}

/* Consumer: look at the next record without taking it.  Everything is checked before it is used:
 * the other side may be broken, or may change the bytes while we look (each word is read once). */
enum ring_status ring_peek(struct ring *ring, struct ring_record *record)
{
	int pads = 0;

	for (;;) {
		uint32_t used, index, size, kind_flags;

		if (!has_record(ring))
			return RING_EMPTY;
		used = ring->seen - ring->own;
		index = ring->own & (ring->size - 1);
		if (used > ring->size || (ring->seen & 7u) != 0)
			return RING_BROKEN;

		memcpy(&size, ring->data + index, sizeof size);
		memcpy(&kind_flags, ring->data + index + 4, sizeof kind_flags);
		if ((size & 7u) != 0 || size < 8 || size > used || size > ring->size - index)
			return RING_BROKEN;
		if ((kind_flags & 0xffffu) == CHANNEL_PAD) {
			/* Only ever one, up to the end of the ring: anything else would let a
			 * broken peer keep us here. */
			if (++pads > 1 || size != ring->size - index)
				return RING_BROKEN;
			ring_release(ring, size);
			continue;
		}
		if (size < CHANNEL_RECORD_HEADER)
			return RING_BROKEN;
		record->bytes = ring->data + index;
		record->size = size;
		record->kind = (uint16_t)(kind_flags & 0xffffu);
		record->flags = (uint16_t)(kind_flags >> 16);
		memcpy(&record->id, ring->data + index + 8, sizeof record->id);
		return RING_OK;
	}
}

/* Consumer: give the bytes of the record back. */
void ring_release(struct ring *ring, uint32_t bytes)
{
	ring->own += bytes;
	/* release, pairs with the acquire of head in refresh_head(): our reads of the slot are done
	 * before the producer may see it free.  A load can not sink below a release store. */
	atomic_store_explicit(&ring->control->head, ring->own, memory_order_release);
}

/* Consumer: say "asleep", then look once more.  1: the caller may wait on the bell; 0: records
 * came, go on reading. */
int ring_sleep(struct ring *ring)
{
	atomic_store_explicit(&ring->control->asleep, 1, memory_order_relaxed);
	atomic_thread_fence(memory_order_seq_cst); /* see ring_publish() */
	if (!has_record(ring))
		return 1;
	/* If the producer was quicker to clear it, a byte is in the bell: it costs one wake-up for
	 * nothing later. */
	atomic_exchange_explicit(&ring->control->asleep, 0, memory_order_relaxed);
	return 0;
}

/* Consumer: empty the bell after it rang (the descriptor is readable).  RING_CLOSED at end-of-file.
 */
enum ring_status ring_awake(struct ring *ring)
{
	char bytes[256];
	ssize_t got;

	do
		got = read(ring->bell, bytes, sizeof bytes);
	while (got < 0 && errno == EINTR);
	atomic_store_explicit(&ring->control->asleep, 0, memory_order_relaxed);
	if (got == 0 || (got < 0 && errno != EAGAIN))
		return RING_CLOSED;
	return RING_OK;
}

static void cpu_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#elif defined(__aarch64__) || (defined(__arm__) && __ARM_ARCH >= 7)
	__asm__ __volatile__("yield" ::: "memory");
#endif
}

void ring_spin_init(struct ring_spin *spin, uint32_t most_ns)
{
	spin->most_ns = most_ns;
	spin->budget_ns = 0;
	spin->until_probe = 8;
}

/* Spin for a moment if that has been paying.  The budget doubles when a record came within it and
 * halves when none did; at the bottom it is off, and one wait in 64 tries again.  So it switches
 * itself off where it can not pay: on one core, on a busy machine, and between rare events. */
static int spin_for_record(struct ring *ring, struct ring_spin *spin)
{
	uint32_t budget = spin->budget_ns;
	uint64_t until;

	if (spin->most_ns == 0)
		return 0;
	if (budget == 0) {
		if (--spin->until_probe != 0)
			return 0;
		spin->until_probe = 64;
		budget = spin->most_ns / 4;
	}
	until = channel_now_ns() + budget;
	do {
		for (int turn = 0; turn < 16; turn++) {
			if (has_record(ring)) {
				spin->budget_ns =
				    budget * 2 < spin->most_ns ? budget * 2 : spin->most_ns;
				return 1;
			}
			cpu_relax();
		}
	} while (channel_now_ns() < until);
	spin->budget_ns = budget / 2 > 1000 ? budget / 2 : 0;
	return 0;
}

/* Consumer: wait until there is a record.  timeout_ns < 0: for ever.  The bell must block (read end
 * of a pipe). */
enum ring_status ring_wait(struct ring *ring, struct ring_spin *spin, int64_t timeout_ns)
{
	uint64_t deadline = timeout_ns < 0 ? 0 : channel_now_ns() + (uint64_t)timeout_ns;

	if (has_record(ring) || spin_for_record(ring, spin))
		return RING_OK;
	while (ring_sleep(ring)) {
		char bytes[256];
		ssize_t got;

		if (timeout_ns >= 0) {
			struct pollfd bell = {.fd = ring->bell, .events = POLLIN};
			uint64_t now = channel_now_ns();
			uint64_t left = now < deadline ? deadline - now : 0;
			struct timespec wait = {.tv_sec = (time_t)(left / 1000000000u),
			                        .tv_nsec = (long)(left % 1000000000u)};
			int ready = ppoll(&bell, 1, &wait, NULL);

			if (ready < 0)
				return errno == EINTR ? RING_INTERRUPTED : RING_CLOSED;
			if (ready == 0) {
				atomic_exchange_explicit(&ring->control->asleep, 0,
				                         memory_order_relaxed);
				return has_record(ring) ? RING_OK : RING_TIMEOUT;
			}
		}
		got = read(ring->bell, bytes, sizeof bytes);
		if (got < 0 && errno == EINTR)
			return RING_INTERRUPTED;
		if (got <= 0) /* what was published before the other side went is still read */
			return has_record(ring) ? RING_OK : RING_CLOSED;
	}
	return RING_OK;
}

/* Producer: no room.  The consumer does not ring for room (it would cost every release a fence, for
 * a case that a bounded queue makes rare), so wait a little, longer with each attempt, and notice
 * when the other side is gone. */
enum ring_status ring_wait_room(struct ring *ring, uint32_t attempt)
{
	struct pollfd bell = {.fd = ring->bell, .events = 0};
	uint64_t wait_ns = UINT64_C(20000) << (attempt < 6 ? attempt : 6);
	struct timespec wait = {.tv_sec = 0, .tv_nsec = (long)wait_ns};
	int ready = ppoll(&bell, 1, &wait,
	                  NULL); /* only POLLERR can come: the read end of our bell was closed */

	if (ready < 0 && errno == EINTR)
		return RING_INTERRUPTED;
	return ready > 0 ? RING_CLOSED : RING_OK;
}
