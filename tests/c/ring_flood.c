/* One way only, the ring nearly always full: what the producer may overwrite is said by head alone.
 *
 * Why: in ring_stress an answer comes back for every record, and orders what head should order;
 * here nothing else does, so the thread sanitizer sees a head that is stored or loaded too weakly.
 *
 *   ring_flood RECORDS [SEED]    exit 0 and one line of counts, or a message and exit 1
 */
#include "stress.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>

#define RING 4096u

static uint64_t records;
static struct ring producer, consumer;

static void *read_all(void *unused)
{
	struct ring_spin spin;
	uint32_t state = 0x9e3779b9u;

	(void)unused;
	ring_spin_init(&spin, 5000);
	for (uint64_t number = 1; number <= records; number++) {
		take(&consumer, &spin, number);
		pause_sometimes(&state);
	}
	return NULL;
}

int main(int count, char **arguments)
{
	uint32_t state = count > 2 ? (uint32_t)strtoul(arguments[2], NULL, 10) | 1u : 12345u;
	size_t bytes = channel_segment_bytes(RING, RING);
	void *segment =
	    mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct ring unused;
	pthread_t thread;
	int bell[2];

	records = count > 1 ? strtoull(arguments[1], NULL, 10) : 100000;
	if (segment == MAP_FAILED || pipe(bell) != 0 ||
	    channel_format(segment, bytes, RING, RING, 1, 1) != RING_OK ||
	    channel_open(segment, bytes, &producer, &unused) != RING_OK ||
	    channel_open(segment, bytes, &consumer, &unused) != RING_OK)
		return 1;
	fcntl(bell[1], F_SETFL, O_NONBLOCK);
	producer.bell = bell[1];
	consumer.bell = bell[0];
	alarm(300);
	pthread_create(&thread, NULL, read_all, NULL);
	for (uint64_t number = 1; number <= records; number++)
		put(&producer, number, &state);
	pthread_join(thread, NULL);
	printf("%llu records one way\n", (unsigned long long)records);
	return 0;
}
