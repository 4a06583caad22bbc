/* The waking protocol of the channel, with weak memory and crashes, for spin.
 *
 * Why: a lost wake-up, an event begun twice or a slot overwritten too early shows once in a billion records on one kind
 * of processor. Here every interleaving of a small channel is looked at. channel.c (ring_publish, ring_sleep, ring_wait,
 * ring_awake), lane.py (_drain, _on_exit) and PROTOCOL.md are what is modelled; names are theirs.
 *
 * Memory. Spin itself is sequentially consistent, so each side has a store buffer: a store waits there, the side's later
 * loads pass it, and buffered stores reach memory in any order (ARM), except that two stores to one word keep their order
 * and a release store waits for all stores before it. A full fence waits until the buffer is empty. An exchange acts on
 * memory itself. Loads happen in program order: what acquire forbids is shown by the control NO_ACQUIRE.
 *
 * Death. A side may be killed between any two steps. What it has stored by then reaches memory (an interrupt is precise:
 * retired stores are not taken back, and leaving a process goes through full barriers), and then its ends of the pipes
 * close. With LOSE_AT_CRASH what was still in the buffer may be lost instead: everything but "none begun twice" must hold
 * even then.
 *
 * Properties: no torn record and none overwritten in hand (assertions where bytes are read); none begun twice, none lost
 * that was never begun (processor's on_exit); no lost wake-up (`observer`: when nothing can move, everything sent has been
 * answered); whoever survives a crash ends (spin's own check for invalid end states).
 *
 * Controls, each of which must FAIL with N=3 DEPTH=3: NO_PRODUCER_FENCE NO_CONSUMER_FENCE NO_RECHECK NO_RING TAKEN_AFTER
 * NO_RELEASE NO_ACQUIRE NO_HEAD_RELEASE RELEASE_EARLY HELD_OPEN (somebody else keeps the processor's end of the doorbell
 * open). check.py runs them all.
 */
#ifndef N
#define N 2 /* events */
#endif
#ifndef DEPTH
#define DEPTH 2 /* given to the worker and not answered, at most */
#endif
#define SLOTS 2
#define PIPE 2 /* bytes a doorbell holds */
#define K 7    /* stores a buffer holds */

#define P 0
#define W 1

/* words of the segment */
#define E_TAIL 0
#define E_HEAD 1
#define E_ASLEEP 2
#define R_TAIL 3
#define R_HEAD 4
#define R_ASLEEP 5
#define TAKEN 6
#define E_A 7 /* a record is two words of its slot, so that a torn one can be seen */
#define E_B 9
#define R_A 11
#define R_B 13
byte mem[15];

/* store buffers: entries of P at 0.., of W at K.. */
byte at[14];
byte value[14];
bit released[14]; /* a release store */
byte stores[2];

byte bell[2]; /* bytes waiting to be read BY that side */
bit closed[2]; /* that side's ends of the pipes */
bit kill[2];
bit finish; /* nothing is left to do: the processor may stop */

byte sent, answered;
byte begun[N];

#define RELEASE 1
#define RELAXED 0
#ifdef NO_RELEASE
#define TAIL_ORDER RELAXED
#else
#define TAIL_ORDER RELEASE
#endif
#ifdef NO_HEAD_RELEASE
#define HEAD_ORDER RELAXED
#else
#define HEAD_ORDER RELEASE
#endif

inline store(side, word, what, order)
{
	d_step {
		stores[side] < K ->
		at[side * K + stores[side]] = word;
		value[side * K + stores[side]] = what;
		released[side * K + stores[side]] = order;
		stores[side]++;
	}
}

#define fence(side) (stores[side] == 0)

#define PENDING(side, i, word) (i < stores[side] && at[side * K + i] == word)
#define OWN_STORE(side, word)                                                                      \
	(PENDING(side, 0, word) || PENDING(side, 1, word) || PENDING(side, 2, word) ||             \
	 PENDING(side, 3, word) || PENDING(side, 4, word) || PENDING(side, 5, word) ||             \
	 PENDING(side, 6, word))

inline exchange_with_0(side, word, old)
{
	d_step {
		!OWN_STORE(side, word) ->
		old = mem[word];
		mem[word] = 0;
	}
}

/* One buffered store reaches memory. Entry i may overtake those before it if it is no release and they are other words. */
#define OTHER(s, i, j) (at[s * K + i] != at[s * K + j])
#define FREE(s, i) (stores[s] > i && !released[s * K + i])
#define MAY1(s) (FREE(s, 1) && OTHER(s, 1, 0))
#define MAY2(s) (FREE(s, 2) && OTHER(s, 2, 0) && OTHER(s, 2, 1))
#define MAY3(s) (FREE(s, 3) && OTHER(s, 3, 0) && OTHER(s, 3, 1) && OTHER(s, 3, 2))
#define MAY4(s)                                                                                    \
	(FREE(s, 4) && OTHER(s, 4, 0) && OTHER(s, 4, 1) && OTHER(s, 4, 2) && OTHER(s, 4, 3))
#define MAY5(s)                                                                                    \
	(FREE(s, 5) && OTHER(s, 5, 0) && OTHER(s, 5, 1) && OTHER(s, 5, 2) && OTHER(s, 5, 3) &&     \
	 OTHER(s, 5, 4))
#define MAY6(s)                                                                                    \
	(FREE(s, 6) && OTHER(s, 6, 0) && OTHER(s, 6, 1) && OTHER(s, 6, 2) && OTHER(s, 6, 3) &&     \
	 OTHER(s, 6, 4) && OTHER(s, 6, 5))

inline commit(s, i)
{
	mem[at[s * K + i]] = value[s * K + i];
	k = s * K + i;
	do
	:: k + 1 < s * K + stores[s] ->
		at[k] = at[k + 1];
		value[k] = value[k + 1];
		released[k] = released[k + 1];
		k++
	:: else -> break
	od;
	at[k] = 0;
	value[k] = 0;
	released[k] = 0;
	k = 0;
	stores[s]--
}

proctype memory(byte s)
{
	byte k;
end:
	do
	:: d_step { stores[s] > 0 -> commit(s, 0) }
	:: d_step { MAY1(s) -> commit(s, 1) }
	:: d_step { MAY2(s) -> commit(s, 2) }
	:: d_step { MAY3(s) -> commit(s, 3) }
	:: d_step { MAY4(s) -> commit(s, 4) }
	:: d_step { MAY5(s) -> commit(s, 5) }
	:: d_step { MAY6(s) -> commit(s, 6) }
	od
}

/* The doorbell does not block: a full pipe is as good. Nobody at the other end: EPIPE, not an error here. */
inline ring_bell(other)
{
	d_step {
		if
		:: bell[other] < PIPE && !closed[other] -> bell[other]++
		:: else
		fi
	}
}

/* Store a record and make it visible; `own` is the producer's position. */
inline ring_publish(side, other, a_word, b_word, tail_word, asleep_word, own)
{
	store(side, a_word + own % SLOTS, own + 1, RELAXED);
	store(side, b_word + own % SLOTS, own + 1, RELAXED);
	own++;
	store(side, tail_word, own, TAIL_ORDER);
#ifndef NO_PRODUCER_FENCE
	fence(side);
#endif
	old = mem[asleep_word];
	if
	:: old == 1 ->
		exchange_with_0(side, asleep_word, old);
		if
		:: old == 1 ->
#ifndef NO_RING
			ring_bell(other);
#endif
			old = 0
		:: else
		fi
	:: else
	fi
}

/* After it `seen == own` says whether the caller may wait on the bell. */
inline ring_sleep(side, tail_word, asleep_word, own, seen)
{
	store(side, asleep_word, 1, RELAXED);
#ifndef NO_CONSUMER_FENCE
	fence(side);
#endif
#ifndef NO_RECHECK
	seen = mem[tail_word];
	if
	:: seen != own -> exchange_with_0(side, asleep_word, old); old = 0
	:: else
	fi
#endif
}

/* Look for a record and read it. `a` and `b` are what its words held. */
inline ring_peek(a_word, b_word, tail_word, own, seen)
{
#ifdef NO_ACQUIRE
	a = mem[a_word + own % SLOTS]; /* a load may pass a relaxed load before it */
#endif
	if
	:: seen == own -> seen = mem[tail_word]
	:: else
	fi;
	if
	:: seen != own ->
#ifndef NO_ACQUIRE
		a = mem[a_word + own % SLOTS];
#endif
		b = mem[b_word + own % SLOTS];
		assert(a == own + 1 && b == own + 1);
		a = 0;
		b = 0
	:: else -> a = 0
	fi
}

#define STILL_THERE(b_word, own) assert(mem[b_word + own % SLOTS] == own + 1)

proctype worker()
{
	byte own, seen, r_own, r_seen, a, b, old;

	{
		do
		:: ring_peek(E_A, E_B, E_TAIL, own, seen);
		   if
		   :: seen != own ->
#ifndef TAKEN_AFTER
			store(W, TAKEN, own + 1, RELEASE);
#endif
			begun[own]++; /* the handler's first instruction */
			assert(begun[own] == 1);
#ifdef TAKEN_AFTER
			store(W, TAKEN, own + 1, RELEASE);
#endif
#ifdef RELEASE_EARLY
			store(W, E_HEAD, own + 1, RELEASE);
#endif
			/* the reply's room: nobody rings for it, it is looked at again (ring_wait_room) */
			do
			:: r_own - r_seen < SLOTS -> break
			:: else ->
				r_seen = mem[R_HEAD];
				if
				:: r_own - r_seen < SLOTS
				:: else -> mem[R_HEAD] != r_seen || closed[P];
					if
					:: mem[R_HEAD] == r_seen -> goto left
					:: else
					fi
				fi
			od;
			STILL_THERE(E_B, own);
			ring_publish(W, P, R_A, R_B, R_TAIL, R_ASLEEP, r_own);
#ifndef NO_HEAD_RELEASE
			STILL_THERE(E_B, own);
#endif
			own++;
			store(W, E_HEAD, own, HEAD_ORDER);
#ifdef NO_HEAD_RELEASE
			STILL_THERE(E_B, (own - 1)); /* a load may sink below a relaxed store */
#endif
		   :: else ->
			/* ring_wait */
			do
			:: ring_sleep(W, E_TAIL, E_ASLEEP, own, seen);
			   if
			   :: seen != own -> break
			   :: else ->
				if
				:: d_step { bell[W] > 0 -> bell[W] = 0 }
				:: bell[W] == 0 && closed[P] -> /* end of file */
					seen = mem[E_TAIL];
					if
					:: seen != own -> break
					:: else -> goto left
					fi
				fi
			   fi
			od
		   fi
		od
	} unless { kill[W] };
left:
#ifdef LOSE_AT_CRASH
	if
	:: kill[W] -> d_step { stores[W] = 0; old = 0;
		do
		:: old < K -> at[K + old] = 0; value[K + old] = 0; released[K + old] = 0; old++
		:: else -> break
		od; old = 0 }
	:: fence(W)
	fi;
#else
	fence(W);
#endif
	closed[W] = 1
}

/* lane.py: what it has is given as long as there is room; nobody rings for room, so it is tried when events arrive and after
 * each drain. */
inline refill()
{
	do
	:: sent < arrived && sent - answered < DEPTH ->
		if
		:: sent - seen >= SLOTS -> seen = mem[E_HEAD]
		:: else
		fi;
		if
		:: sent - seen >= SLOTS -> break
		:: else -> ring_publish(P, W, E_A, E_B, E_TAIL, E_ASLEEP, sent)
		fi
	:: else -> break
	od
}

inline take_reply()
{
	STILL_THERE(R_B, r_own);
	r_own++;
	store(P, R_HEAD, r_own, HEAD_ORDER);
#ifdef NO_HEAD_RELEASE
	STILL_THERE(R_B, (r_own - 1));
#endif
	answered++
}

proctype processor()
{
	byte seen, r_own, r_seen, a, b, old, arrived, id;
	bit again = 1; /* _drain has been asked for with call_soon */

	{
		do
		:: arrived < N -> arrived++; refill()
		:: again ->
drain:
			again = 0;
			ring_peek(R_A, R_B, R_TAIL, r_own, r_seen);
			if
			:: r_seen != r_own -> take_reply(); again = 1
			:: else ->
				ring_sleep(P, R_TAIL, R_ASLEEP, r_own, r_seen);
				if
				:: r_seen != r_own -> again = 1
				:: else
				fi
			fi;
			refill()
		:: d_step { bell[P] > 0 -> bell[P] = 0 } -> /* _on_bell: awake, then _drain */
			store(P, R_ASLEEP, 0, RELAXED);
			goto drain
		:: closed[W] -> goto exited
		:: finish -> goto left
		od;
exited:
		/* _on_exit: its last words count, then each job is finished or given back */
		do
		:: ring_peek(R_A, R_B, R_TAIL, r_own, r_seen);
		   if
		   :: r_seen != r_own -> take_reply()
		   :: else -> break
		   fi
		od;
		id = answered;
		do
		:: id < sent ->
			if
			:: mem[TAKEN] > id -> skip /* begun: a failed attempt */
			:: else ->
#ifndef LOSE_AT_CRASH
				assert(begun[id] == 0) /* it is dealt again */
#else
				skip
#endif
			fi;
			id++
		:: else -> break
		od;
		do
		:: id < N -> assert(begun[id] == 0); id++ /* never sent: others get it */
		:: else -> break
		od
	} unless { kill[P] };
left:
#ifdef LOSE_AT_CRASH
	if
	:: kill[P] -> d_step { stores[P] = 0; old = 0;
		do
		:: old < K -> at[old] = 0; value[old] = 0; released[old] = 0; old++
		:: else -> break
		od; old = 0 }
	:: fence(P)
	fi;
#else
	fence(P);
#endif
#ifndef HELD_OPEN
	closed[P] = 1
#endif
}

proctype killer()
{
	if
	:: kill[P] = 1
	:: kill[W] = 1
	:: skip
	fi;
	if
	:: kill[P] = 1
	:: kill[W] = 1
	:: skip
	fi
}

/* When nothing can move any more and nobody was killed, everything must have been answered and seen. */
proctype observer()
{
	timeout;
	assert(kill[P] || kill[W] ||
	       (answered == N && mem[E_TAIL] == N && mem[E_HEAD] == N && mem[R_TAIL] == N && mem[R_HEAD] == N));
	finish = 1
}

init
{
	atomic {
		run memory(P);
		run memory(W);
		run processor();
		run worker();
		run killer();
		run observer()
	}
}
