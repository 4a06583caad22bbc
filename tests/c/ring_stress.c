/* Both ends of a channel as two threads of one process, running the very code that workers and
 * processors run: so the thread sanitizer sees every access.  Sizes and pauses are random; each
 * record carries its number and a pattern.
 *
 *   ring_stress RECORDS [SEED]    exit 0 and one line of counts, or a message and exit 1
 *
 * A lost wake-up shows as a hang: the alarm ends it. */
#include "stress.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>

#define RING 8192u

static uint64_t records;
static void *segment;
static int event_pipe[2], reply_pipe[2];

static void *worker(void *unused)
{
	struct ring events, replies;
	struct ring_spin spin;
	uint32_t state = 0x9e3779b9u;

	(void)unused;
	channel_open(segment, channel_segment_bytes(RING, RING), &events, &replies);
	events.bell = event_pipe[0];
	replies.bell = reply_pipe[1];
	ring_spin_init(&spin, 5000);
	for (uint64_t number = 1; number <= records; number++) {
		take(&events, &spin, number);
		pause_sometimes(&state);
		put(&replies, number, &state);
	}
	return NULL;
}

int main(int count, char **arguments)
{
	struct ring events, replies;
	struct ring_spin spin;
	uint32_t state = count > 2 ? (uint32_t)strtoul(arguments[2], NULL, 10) | 1u : 12345u;
	size_t bytes = channel_segment_bytes(RING, RING);
	uint64_t sent = 0, got = 0;
	pthread_t thread;

	records = count > 1 ? strtoull(arguments[1], NULL, 10) : 100000;
	segment = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (segment == MAP_FAILED || pipe(event_pipe) != 0 || pipe(reply_pipe) != 0)
		return 1;
	fcntl(event_pipe[1], F_SETFL, O_NONBLOCK);
	fcntl(reply_pipe[1], F_SETFL, O_NONBLOCK);
	if (channel_format(segment, bytes, RING, RING, 1, 1) != RING_OK ||
	    channel_open(segment, bytes, &events, &replies) != RING_OK)
		return 1;
	events.bell = event_pipe[1];
	replies.bell = reply_pipe[0];
	ring_spin_init(&spin, 5000);
	alarm(300);
	pthread_create(&thread, NULL, worker, NULL);
	while (got < records) {
		uint32_t burst = next_random(&state) % 8;

		while (burst-- > 0 && sent < records && sent - got < 8)
			put(&events, ++sent, &state);
		if (sent > got)
			take(&replies, &spin, ++got);
		pause_sometimes(&state);
	}
	pthread_join(thread, NULL);
	printf("%llu records there and back\n", (unsigned long long)got);
	return 0;
}
