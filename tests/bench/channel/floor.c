/* The floor under the benchmark: the same ring, records and waking as the Python rows, from C to C.
 *
 *   floor RING_BYTES BODY_BYTES
 *
 * Near process and its child, the far one.  It prints both pids, then reads commands, a line each:
 * "send N", "ping N PAUSE_NS", "pace N INTERVAL_NS", "memcpy N 0".  The answer is one line: last
 * length, began, ended, CPU of near and far (all nanoseconds), context switches, then for "ping"
 * the latencies. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "record.h"

struct order {
	char what; /* 's'end, 'p'ing, 'q'uit */
	uint64_t count;
};

struct answer {
	uint64_t last, began, ended, cpu, switches;
};

static const struct record_bytes nothing = {"", 0};

static uint64_t cpu_ns(void)
{
	struct timespec used;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
	return (uint64_t)used.tv_sec * 1000000000u + (uint64_t)used.tv_nsec;
}

static uint64_t switches(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return (uint64_t)(usage.ru_nvcsw + usage.ru_nivcsw);
}

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static void put_event(struct ring *events, uint64_t id, struct record_bytes body)
{
	static const struct record_event event = {.shard_id = -1};
	struct record_bytes texts[CHANNEL_TEXT_PARTS];

	for (int part = 0; part < (int)CHANNEL_TEXT_PARTS; part++)
		texts[part] = nothing;
	for (;;) {
		enum ring_status status = record_put_event(events, 0, id, &event, texts, body, 0);

		if (status == RING_OK)
			return;
		if (status != RING_FULL || ring_wait_room(events, 0) == RING_CLOSED)
			die("put");
	}
}

/* Wait for the next record, copy its body out; the body's length. */
static uint64_t take(struct ring *ring, struct ring_spin *spin, struct ring_record *record,
                     char *to)
{
	uint32_t head_bytes;
	struct record_bytes body;
	struct record_parts parts;

	while (ring_peek(ring, record) == RING_EMPTY)
		if (ring_wait(ring, spin, -1) == RING_CLOSED)
			exit(0);
	if (record->kind == CHANNEL_EVENT) {
		if (!record_event_head(record, &head_bytes, &body))
			die("event");
	} else {
		if (!record_parts(record, &parts))
			die("reply");
		body = parts.body;
	}
	memcpy(to, body.data, body.size);
	return body.size;
}

static void far_side(struct ring *events, struct ring *replies, int orders, int answers, char *body)
{
	struct ring_spin spin;
	struct order order;
	struct record_reply reply = {.status = 200};

	ring_spin_init(&spin, 20000);
	while (read(orders, &order, sizeof order) == (ssize_t)sizeof order && order.what != 'q') {
		struct answer answer = {.began = channel_now_ns()};
		uint64_t cpu = cpu_ns(), before = switches();
		struct ring_record record;

		for (uint64_t index = 0; index < order.count; index++) {
			answer.last = take(events, &spin, &record, body);
			if (order.what == 'p')
				record_put_reply(
				    replies, CHANNEL_REPLY, 0, record.id, &reply, nothing, nothing,
				    (struct record_bytes){body, (uint32_t)answer.last}, 0);
			ring_release(events, record.size);
		}
		answer.ended = channel_now_ns();
		answer.cpu = cpu_ns() - cpu;
		answer.switches = switches() - before;
		if (write(answers, &answer, sizeof answer) < 0)
			return;
	}
}

static void rest(uint64_t until_ns)
{
	struct timespec until = {.tv_sec = (time_t)(until_ns / 1000000000u),
	                         .tv_nsec = (long)(until_ns % 1000000000u)};

	clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
}

static void ping(struct ring *events, struct ring *replies, struct ring_spin *spin, uint64_t count,
                 uint64_t pause_ns, struct record_bytes body, char *to, uint64_t *latencies)
{
	struct ring_record record;

	for (uint64_t index = 0; index < count; index++) {
		uint64_t began;

		if (pause_ns != 0)
			rest(channel_now_ns() + pause_ns);
		began = channel_now_ns();
		put_event(events, index, body);
		take(replies, spin, &record, to);
		ring_release(replies, record.size);
		latencies[index] = channel_now_ns() - began;
	}
}

static void pace(struct ring *events, uint64_t count, uint64_t interval_ns,
                 struct record_bytes body)
{
	uint64_t due = channel_now_ns();

	for (uint64_t index = 0; index < count; index++) {
		due += interval_ns;
		if (due > channel_now_ns())
			rest(due);
		put_event(events, index, body);
	}
}

static void copy(uint64_t count, struct record_bytes body, char *to, size_t room)
{
	size_t at = 0;

	for (uint64_t index = 0; index < count; index++) {
		if (at + body.size > room)
			at = 0;
		memcpy(to + at, body.data, body.size);
		__asm__ __volatile__("" ::"r"(to + at) : "memory"); /* else it is left out */
		at += ring_align(body.size);
	}
}

struct sides {
	struct ring events, replies;
	struct ring_spin spin;
	struct record_bytes body;
	char *to;
	size_t room;
	int orders, answers;
};

static void obey(struct sides *sides, const char *what, uint64_t count, uint64_t number)
{
	struct order order = {*what == 'p' && what[1] == 'i' ? 'p' : 's', count};
	struct answer far = {0};
	uint64_t *latencies = *what == 'p' ? calloc(count, sizeof *latencies) : NULL;
	uint64_t began, ended, cpu, before;

	if (*what != 'm' && write(sides->orders, &order, sizeof order) < 0)
		die("order");
	cpu = cpu_ns();
	before = switches();
	began = channel_now_ns();
	if (order.what == 'p')
		ping(&sides->events, &sides->replies, &sides->spin, count, number, sides->body,
		     sides->to, latencies);
	else if (*what == 'p')
		pace(&sides->events, count, number, sides->body);
	else if (*what == 'm')
		copy(count, sides->body, sides->to, sides->room);
	else
		for (uint64_t index = 0; index < count; index++)
			put_event(&sides->events, index, sides->body);
	ended = channel_now_ns();
	cpu = cpu_ns() - cpu;
	before = switches() - before;
	if (*what == 'm')
		far = (struct answer){.last = sides->body.size, .ended = ended};
	else if (read(sides->answers, &far, sizeof far) != (ssize_t)sizeof far)
		die("answer");
	printf("%lu %lu %lu %lu %lu %lu", far.last, began, far.ended, cpu, far.cpu,
	       before + far.switches);
	for (uint64_t index = 0; order.what == 'p' && index < count; index++)
		printf(" %lu", latencies[index]);
	printf("\n");
	fflush(stdout);
	free(latencies);
}

static void pipe_or_die(int ends[2])
{
	if (pipe(ends) != 0)
		die("pipe");
}

int main(int count, char **arguments)
{
	uint32_t ring_bytes = (uint32_t)strtoul(count > 2 ? arguments[1] : "", NULL, 10);
	uint32_t body_bytes = (uint32_t)strtoul(count > 2 ? arguments[2] : "", NULL, 10);
	uint32_t bytes = channel_segment_bytes(ring_bytes, ring_bytes);
	void *segment =
	    mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int event_bell[2], reply_bell[2], orders[2], answers[2];
	struct sides sides = {.room = 4u << 20, .body = {calloc(1, body_bytes + 1), body_bytes}};
	char what[16];
	uint64_t number, times;
	pid_t far;

	sides.to = malloc(sides.room + body_bytes);
	pipe_or_die(event_bell);
	pipe_or_die(reply_bell);
	pipe_or_die(orders);
	pipe_or_die(answers);
	if (segment == MAP_FAILED || sides.to == NULL ||
	    channel_format(segment, bytes, ring_bytes, ring_bytes, 0, 0) != RING_OK ||
	    channel_open(segment, bytes, &sides.events, &sides.replies) != RING_OK)
		die("channel");
	far = fork();
	if (far == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(
		    orders[1]); /* if the near side ended before that: end-of-file on its orders */
		sides.events.bell = event_bell[0];
		sides.replies.bell = reply_bell[1];
		close(event_bell[1]);
		far_side(&sides.events, &sides.replies, orders[0], answers[1], sides.to);
		return 0;
	}
	sides.events.bell = event_bell[1];
	sides.replies.bell = reply_bell[0];
	sides.orders = orders[1];
	sides.answers = answers[0];
	ring_spin_init(&sides.spin, 20000);
	printf("%d %d\n", getpid(), far);
	fflush(stdout);
	while (scanf("%15s %lu %lu", what, &times, &number) == 3)
		obey(&sides, what, times, number);
	return 0;
}
