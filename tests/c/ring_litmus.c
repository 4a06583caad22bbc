/* The moment that decides whether a wake-up is lost, a million times: one thread publishes while
 * the other goes to sleep.
 *
 * Why: ring_stress meets that moment seldom. Here both sides enter it together, a few nanoseconds
 * apart, and the outcome is looked at afterwards instead of waiting for a hang: whoever was told to
 * sleep has a record waiting must have been rung.
 *
 *   ring_litmus ROUNDS    exit 0 when no wake-up was lost, 1 at the first lost one; prints how
 * often it came to what
 */
#define _GNU_SOURCE
#include "channel.h"
#include "record.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define RING 4096u
#define PRODUCER_WAIT 64
#define SPREAD 8

static struct ring producer, consumer;
static unsigned long rounds;
static _Atomic unsigned long arrived, left_it;

static unsigned next_random(unsigned *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 17;
	*state ^= *state << 5;
	return *state;
}

/* Both threads leave it at nearly the same moment, each after a short wait of its own. */
static void meet(_Atomic unsigned long *counter, unsigned long target, int wait)
{
	atomic_fetch_add(counter, 1);
	for (unsigned turn = 1; atomic_load(counter) < target; turn++)
		if (turn % 512 == 0)
			sched_yield(); /* on one core the other can not come otherwise */
	for (volatile int left = wait; left > 0; left--)
		;
}

static void *produce(void *unused)
{
	unsigned state = 2463534242u;

	(void)unused;
	for (unsigned long round = 1; round <= rounds; round++) {
		unsigned char *slot;
		uint32_t size = 16, kind = CHANNEL_STOP;

		if (ring_reserve(&producer, size, &slot) != RING_OK)
			_exit(2);
		__builtin_memcpy(slot, &size, 4);
		__builtin_memcpy(slot + 4, &kind, 4);
		meet(&arrived, 2 * round, PRODUCER_WAIT + (int)(next_random(&state) % SPREAD));
		ring_publish(&producer, size);
		meet(&left_it, 2 * round, 0);
	}
	return NULL;
}

static int rung(void)
{
	char bytes[16];

	return read(consumer.bell, bytes, sizeof bytes) > 0;
}

int main(int count, char **arguments)
{
	size_t bytes = channel_segment_bytes(RING, RING);
	unsigned long rings = 0, second_looks = 0;
	struct ring unused;
	unsigned state = 88172645u;
	int bell[2], wait = PRODUCER_WAIT;
	void *segment =
	    mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pthread_t thread;

	rounds = count > 1 ? strtoul(arguments[1], NULL, 10) : 1000000;
	if (segment == MAP_FAILED || pipe2(bell, O_NONBLOCK) != 0 ||
	    channel_format(segment, bytes, RING, RING, 1, 1) != RING_OK ||
	    channel_open(segment, bytes, &producer, &unused) != RING_OK ||
	    channel_open(segment, bytes, &consumer, &unused) != RING_OK)
		return 2;
	producer.bell = bell[1];
	consumer.bell = bell[0];
	pthread_create(&thread, NULL, produce, NULL);
	for (unsigned long round = 1; round <= rounds; round++) {
		struct ring_record record;
		int sleeps, was_rung;

		meet(&arrived, 2 * round, wait + (int)(next_random(&state) % SPREAD));
		sleeps = ring_sleep(&consumer);
		meet(&left_it, 2 * round, 0);
		was_rung = rung();
		/* Stay where both outcomes are as likely: there the two cross. */
		wait += sleeps ? (wait < 4 * PRODUCER_WAIT) : -(wait > 0);
		rings += was_rung;
		second_looks += !sleeps;
		if (sleeps && !was_rung) {
			printf("a wake-up was lost in round %lu\n", round);
			return 1;
		}
		if (ring_peek(&consumer, &record) != RING_OK || record.size != 16)
			return 2;
		atomic_store(&consumer.control->asleep, 0);
		ring_release(&consumer, record.size);
	}
	pthread_join(thread, NULL);
	printf("%lu rounds, %lu rung, %lu seen at the second look, none lost\n", rounds, rings,
	       second_looks);
	return 0;
}
