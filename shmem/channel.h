/* clang-format off */
/* The channel: two one-way rings in one shared-memory segment, and a doorbell each way.
 *
 * Why: events reach a worker of any language without a copy through the kernel, and under load without a system call.
 * Flow: processor -> [events] -> worker -> [replies] -> processor.
 * Promise: one producer and one consumer a ring; what is published is seen whole or not at all; nothing read from the
 * segment is trusted before it is checked; a peer that dies at any instruction stalls only itself.
 *
 * PROTOCOL.md is the contract in words.  This header needs no Python: workers in C, Go and Node.js use it too.
 *
 *   offset    size  what                                  written by
 *   0         64    identity: magic, abi, sizes, salt     processor, once, before the worker starts
 *   64        64    the worker's state                    worker
 *   128       192   control words of the event ring       tail: processor; head, asleep: worker
 *   320       192   control words of the reply ring       tail: worker; head, asleep: processor
 *   4096      E     event ring                            processor
 *   4096+E    R     reply ring                            worker
 */
/* clang-format on */
#ifndef HEADRACE_CHANNEL_H
#define HEADRACE_CHANNEL_H

#include <assert.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#define CHANNEL_MAGIC UINT64_C(0x4543415244414548) /* "HEADRACE" read as little-endian bytes */
#define CHANNEL_ABI 1u
#define CHANNEL_HEADER_BYTES 4096u
#define CHANNEL_RECORD_HEADER 16u
#define CHANNEL_EVENT_HEAD 88u
#define CHANNEL_REPLY_HEAD 32u
#define CHANNEL_TEXT_PARTS 13u
#define CHANNEL_RAW_QUERY UINT32_MAX
#define CHANNEL_MIN_RING 4096u
#define CHANNEL_MAX_RING (1u << 28)

enum channel_kind {
	CHANNEL_PAD = 0, /* only its size is valid: skip to the start of the ring */
	CHANNEL_EVENT = 1,
	CHANNEL_REPLY = 2,
	CHANNEL_LOG = 3,
	CHANNEL_STOP = 4,
	CHANNEL_DRAIN = 5,
	CHANNEL_READY = 6,
	CHANNEL_FAILED = 7,
	CHANNEL_DRAINED = 8,
	CHANNEL_PUBLISH = 9,    /* from the worker: what a handler sends */
	CHANNEL_BATCH_END = 10, /* to the worker: no record follows the last one with MORE */
};

enum channel_flag {
	CHANNEL_MORE = 1,
	CHANNEL_BATCH = 2,
	CHANNEL_LARGE = 4,
	CHANNEL_JSON_BODY = 8,
};

enum ring_status {
	RING_OK = 0,
	RING_EMPTY = 1,   /* nothing to read now */
	RING_FULL = 2,    /* no room now */
	RING_TOO_BIG = 3, /* can never fit: over a quarter of the ring */
	RING_BROKEN = 4,  /* the other side wrote what cannot be */
	RING_CLOSED = 5,  /* the other side is gone */
	RING_TIMEOUT = 6,
	RING_INTERRUPTED = 7, /* a signal arrived: look at it, then call again */
	RING_MISMATCH = 8,    /* not a channel, or of another abi */
};

/* Positions count bytes since the start and wrap at 2^32; the ring's size is a power of two, so an
 * index is position & (size - 1) and "used" is tail - head in wrapping arithmetic.  32 bits because
 * armv6 and armv7 have lock-free 32-bit atomics without a library. */
struct ring_control {
	_Atomic uint32_t tail; /* producer: bytes published */
	char pad0[60];
	_Atomic uint32_t head; /* consumer: bytes given back */
	char pad1[60];
	_Atomic uint32_t
	    asleep; /* consumer sets it before it sleeps; whoever clears it owes the wake-up */
	char pad2[60];
};

struct channel_header {
	uint64_t magic;
	uint32_t abi;
	uint32_t header_bytes;
	uint32_t event_bytes;
	uint32_t reply_bytes;
	uint32_t processor_pid;
	uint32_t reserved;
	uint64_t salt;
	char pad0[24];
	_Atomic uint32_t state; /* 0 starting, 1 ready */
	_Atomic uint32_t worker_pid;
	_Atomic uint32_t taken; /* position in the event ring up to which records were begun */
	_Atomic uint32_t beat;  /* grows with every record begun and every wait ended */
	_Atomic uint32_t
	    hand_since_ms;        /* CLOCK_MONOTONIC when the record in hand was begun, wrapping */
	_Atomic uint32_t in_hand; /* 1 while a record is begun and not given back */
	char pad1[40];
	struct ring_control events;
	struct ring_control replies;
};

static_assert(sizeof(struct ring_control) == 192, "PROTOCOL.md says so");
static_assert(offsetof(struct ring_control, head) == 64, "PROTOCOL.md says so");
static_assert(offsetof(struct ring_control, asleep) == 128, "PROTOCOL.md says so");
static_assert(offsetof(struct channel_header, salt) == 32, "PROTOCOL.md says so");
static_assert(offsetof(struct channel_header, state) == 64, "PROTOCOL.md says so");
static_assert(offsetof(struct channel_header, events) == 128, "PROTOCOL.md says so");
static_assert(offsetof(struct channel_header, replies) == 320, "PROTOCOL.md says so");
static_assert(sizeof(struct channel_header) == 512, "PROTOCOL.md says so");
static_assert(ATOMIC_INT_LOCK_FREE == 2, "the ring needs lock-free 32-bit atomics");

/* One side's view of one ring.  Private memory: the other side can not change it under us. */
struct ring {
	struct ring_control *control;
	unsigned char *data;
	uint32_t size;
	uint32_t own;  /* the position this side owns: tail of a producer, head of a consumer */
	uint32_t seen; /* the other side's position when last looked at */
	int bell;      /* producer: descriptor to ring the consumer with; consumer: to wait on */
};

/* A record found by ring_peek.  `size` has been checked; `bytes` points into the segment. */
struct ring_record {
	const unsigned char *bytes;
	uint32_t size;
	uint16_t kind;
	uint16_t flags;
	uint64_t id;
};

/* Bounded, adaptive spinning before sleep: see ring_wait in channel.c. */
struct ring_spin {
	uint32_t most_ns;
	uint32_t budget_ns;
	uint32_t until_probe;
};

uint32_t channel_segment_bytes(uint32_t event_bytes, uint32_t reply_bytes);
enum ring_status channel_format(void *segment, size_t bytes, uint32_t event_bytes,
                                uint32_t reply_bytes, uint32_t processor_pid, uint64_t salt);
enum ring_status channel_open(void *segment, size_t bytes, struct ring *events,
                              struct ring *replies);

enum ring_status ring_reserve(struct ring *ring, uint64_t bytes, unsigned char **slot);
enum ring_status ring_publish(struct ring *ring, uint32_t bytes);
enum ring_status ring_peek(struct ring *ring, struct ring_record *record);
void ring_release(struct ring *ring, uint32_t bytes);
int ring_sleep(struct ring *ring);
enum ring_status ring_awake(struct ring *ring);
void ring_spin_init(struct ring_spin *spin, uint32_t most_ns);
enum ring_status ring_wait(struct ring *ring, struct ring_spin *spin, int64_t timeout_ns);
enum ring_status ring_wait_room(struct ring *ring, uint32_t attempt);

uint64_t channel_now_ns(void);

static inline uint64_t ring_align(uint64_t bytes)
{
	return (bytes + 7u) & ~UINT64_C(7);
}

#endif
