/* What a doorbell costs, without a ring: two processes wake each other through a pipe, an eventfd,
 * a futex in shared memory.
 *
 *   doorbells COUNT PAUSE_NS ROUNDS
 *
 * One line a doorbell: name, median and 99th percentile of a round trip, CPU of both sides a round
 * trip, all nanoseconds, medians over the rounds. */
#define _GNU_SOURCE
#include <linux/futex.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct bell {
	int read_fd, write_fd;
	_Atomic uint32_t *word; /* of a futex: 1 when rung */
};

static void ring_pipe(struct bell *bell)
{
	if (write(bell->write_fd, "", 1) != 1)
		exit(1);
}

static void wait_pipe(struct bell *bell)
{
	char bytes[256];

	if (read(bell->read_fd, bytes, sizeof bytes) <= 0)
		exit(0);
}

static void ring_eventfd(struct bell *bell)
{
	uint64_t one = 1;

	if (write(bell->write_fd, &one, sizeof one) != sizeof one)
		exit(1);
}

static void wait_eventfd(struct bell *bell)
{
	uint64_t count;

	if (read(bell->read_fd, &count, sizeof count) != sizeof count)
		exit(1);
}

static void ring_futex(struct bell *bell)
{
	atomic_store(bell->word, 1);
	syscall(SYS_futex, bell->word, FUTEX_WAKE, 1, NULL, NULL, 0);
}

static void wait_futex(struct bell *bell)
{
	while (atomic_exchange(bell->word, 0) == 0)
		syscall(SYS_futex, bell->word, FUTEX_WAIT, 0, NULL, NULL, 0);
}

static const struct kind {
	const char *name;
	void (*ring)(struct bell *);
	void (*wait)(struct bell *);
} kinds[] = {{"pipe", ring_pipe, wait_pipe},
             {"eventfd", ring_eventfd, wait_eventfd},
             {"futex", ring_futex, wait_futex}};

#define KINDS (sizeof kinds / sizeof *kinds)
#define MOST_ROUNDS 32

static uint64_t now_ns(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static int by_size(const void *left, const void *right)
{
	uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;

	return (a > b) - (a < b);
}

static struct bell bell_of(size_t kind, _Atomic uint32_t *word)
{
	struct bell bell = {-1, -1, word};
	int ends[2];

	if (kind == 0 && pipe(ends) == 0) {
		bell.read_fd = ends[0];
		bell.write_fd = ends[1];
	} else if (kind == 1) {
		bell.read_fd = bell.write_fd = eventfd(0, 0);
	}
	return bell;
}

static uint64_t used_ns(int who)
{
	struct rusage usage;

	getrusage(who, &usage);
	return (uint64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000000u +
	       (uint64_t)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1000u;
}

/* One round: fork, wake each other `count` times; median, 99th percentile and CPU of both. */
static void measure(size_t which, size_t count, uint64_t pause_ns, uint64_t found[3])
{
	const struct kind *kind = &kinds[which];
	_Atomic uint32_t *words =
	    mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct bell there = bell_of(which, words), back = bell_of(which, words + 64);
	struct timespec pause = {.tv_sec = 0, .tv_nsec = (long)pause_ns};
	uint64_t *took = malloc(count * sizeof *took), cpu, children = used_ns(RUSAGE_CHILDREN);
	pid_t far = fork();

	if (far == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (size_t index = 0; index < count; index++) {
			kind->wait(&there);
			kind->ring(&back);
		}
		_exit(0);
	}
	cpu = now_ns(CLOCK_PROCESS_CPUTIME_ID);
	for (size_t index = 0; index < count; index++) {
		if (pause_ns != 0)
			nanosleep(&pause, NULL);
		took[index] = now_ns(CLOCK_MONOTONIC);
		kind->ring(&there);
		kind->wait(&back);
		took[index] = now_ns(CLOCK_MONOTONIC) - took[index];
	}
	cpu = now_ns(CLOCK_PROCESS_CPUTIME_ID) - cpu;
	waitpid(far, NULL, 0);
	qsort(took, count, sizeof *took, by_size);
	found[0] = took[count / 2];
	found[1] = took[count * 99 / 100];
	found[2] = (cpu + used_ns(RUSAGE_CHILDREN) - children) / count;
	free(took);
	munmap(words, 4096);
	if (there.read_fd >= 0) {
		close(there.read_fd);
		close(back.read_fd);
		if (there.write_fd != there.read_fd) {
			close(there.write_fd);
			close(back.write_fd);
		}
	}
}

int main(int count, char **arguments)
{
	size_t times = count == 4 ? strtoul(arguments[1], NULL, 10) : 0;
	uint64_t pause_ns = count == 4 ? strtoul(arguments[2], NULL, 10) : 0;
	size_t rounds = count == 4 ? strtoul(arguments[3], NULL, 10) : 0;
	static uint64_t found[KINDS][3][MOST_ROUNDS];

	if (times == 0 || rounds == 0 || rounds > MOST_ROUNDS)
		return 2;
	for (size_t round = 0; round < rounds; round++)
		for (size_t which = 0; which < KINDS; which++) {
			uint64_t one[3];

			measure(which, times, pause_ns, one);
			for (size_t number = 0; number < 3; number++)
				found[which][number][round] = one[number];
		}
	for (size_t which = 0; which < KINDS; which++) {
		for (size_t number = 0; number < 3; number++)
			qsort(found[which][number], rounds, sizeof(uint64_t), by_size);
		printf("%s %lu %lu %lu\n", kinds[which].name, found[which][0][rounds / 2],
		       found[which][1][rounds / 2], found[which][2][rounds / 2]);
	}
	return 0;
}
