/* The channel for Python: the module shmem._channel, limited API (abi3) of 3.11.  Its face is
 * _channel.pyi.
 *
 * Thin on purpose: gathering (pygather.c), then the C core.  One end lives in one process; the GIL
 * makes each call whole, except the waits, which release it and leave no state half-changed. */
#include "pygather.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "apart.h"

#define NAME_BYTES 120

static PyObject *RingBroken, *RingClosed, *NoSpace;

static PyObject *raise_status(enum ring_status status)
{
	switch (status) {
	case RING_TOO_BIG:
		PyErr_SetString(PyExc_ValueError,
		                "the record takes more than a quarter of the ring");
		break;
	case RING_CLOSED:
		PyErr_SetString(RingClosed, "the other side of the channel is gone");
		break;
	case RING_MISMATCH:
		PyErr_SetString(RingBroken, "not a channel, or one of another protocol version");
		break;
	default:
		PyErr_SetString(RingBroken, "the other side of the channel wrote what cannot be");
	}
	return NULL;
}

static PyObject *raise_apart(int error, uint32_t size)
{
	if (error == ENOSPC || error == ENOMEM)
		PyErr_Format(NoSpace, "/dev/shm has no room for a body of %u bytes", size);
	else
		PyErr_Format(RingBroken,
		             "a body of %u bytes in a segment of its own is not readable: %s", size,
		             strerror(error));
	return NULL;
}

/* ------------------------------------------------------------------------------------------
 * processor's end */

struct processor_channel {
	PyObject_HEAD Py_buffer buffer;
	int open;
	struct channel_header *header;
	struct ring events, replies;
	uint32_t most_body; /* of one event or reply */
	uid_t worker_uid;   /* who opens large bodies of events; -1: we ourselves */
	gid_t worker_gid;
	char name[NAME_BYTES];
};

static int processor_init(PyObject *object, PyObject *arguments, PyObject *keywords)
{
	static char *names[] = {"buffer",   "name",     "event_bytes", "reply_bytes",
	                        "event_fd", "reply_fd", "salt",        NULL};
	struct processor_channel *self = (struct processor_channel *)object;
	PyObject *buffer;
	const char *name;
	unsigned int event_bytes, reply_bytes;
	unsigned long long salt;
	int event_fd, reply_fd;
	enum ring_status status;

	if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "OsIIiiK", names, &buffer, &name,
	                                 &event_bytes, &reply_bytes, &event_fd, &reply_fd, &salt))
		return -1;
	if (self->open || strlen(name) >= NAME_BYTES) {
		PyErr_SetString(PyExc_ValueError, "channel name too long, or channel already open");
		return -1;
	}
	if (PyObject_GetBuffer(buffer, &self->buffer, PyBUF_WRITABLE) < 0)
		return -1;
	status = channel_format(self->buffer.buf, (size_t)self->buffer.len, event_bytes,
	                        reply_bytes, (uint32_t)getpid(), salt);
	if (status == RING_OK)
		status = channel_open(self->buffer.buf, (size_t)self->buffer.len, &self->events,
		                      &self->replies);
	if (status != RING_OK) {
		PyBuffer_Release(&self->buffer);
		PyErr_SetString(
		    PyExc_ValueError,
		    "ring sizes must be powers of two, at least 4096, and fit the buffer");
		return -1;
	}
	strcpy(self->name, name);
	self->header = self->buffer.buf;
	self->events.bell = event_fd;
	self->replies.bell = reply_fd;
	self->most_body = UINT32_MAX;
	self->worker_uid = (uid_t)-1;
	self->worker_gid = (gid_t)-1;
	self->open = 1;
	return 0;
}

static struct processor_channel *processor_of(PyObject *object)
{
	struct processor_channel *self = (struct processor_channel *)object;

	if (self->open)
		return self;
	PyErr_SetString(RingClosed, "this channel is closed");
	return NULL;
}

static PyObject *processor_close(PyObject *object, PyObject *unused)
{
	struct processor_channel *self = (struct processor_channel *)object;

	(void)unused;
	if (self->open) {
		self->open = 0;
		PyBuffer_Release(&self->buffer);
	}
	Py_RETURN_NONE;
}

static void channel_free(PyObject *object)
{
	PyTypeObject *type = Py_TYPE(object);
	freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);

	release(object);
	Py_DECREF(type);
}

static void processor_dealloc(PyObject *object)
{
	PyObject *done = processor_close(object, NULL);

	Py_XDECREF(done);
	channel_free(object);
}

/* Whether `body` goes into a segment of its own: with it the record would be over a quarter of the
 * ring. */
static int body_is_apart(const struct ring *ring, uint32_t head_bytes,
                         const struct record_bytes *texts, uint32_t count, struct record_bytes body)
{
	uint64_t total = (uint64_t)CHANNEL_RECORD_HEADER + head_bytes + 8 + body.size;

	for (uint32_t part = 0; part < count; part++)
		total += texts[part].size;
	return body.size > 0 && total > ring->size / 4;
}

static PyObject *put_event_gathered(struct processor_channel *self, uint16_t flags, uint64_t id,
                                    const struct record_event *event,
                                    const struct record_bytes *texts, struct record_bytes body)
{
	int apart =
	    body_is_apart(&self->events, CHANNEL_EVENT_HEAD, texts, CHANNEL_TEXT_PARTS, body);
	char name[APART_NAME_BYTES];
	enum ring_status status;

	if (body.size > self->most_body)
		return PyErr_Format(PyExc_ValueError, "a body of %u bytes is over the limit of %u",
		                    body.size, self->most_body);
	if (apart) {
		int error;

		apart_name(name, self->name, 'e', id);
		error = apart_write(name, body.data, body.size, self->worker_uid, self->worker_gid);
		if (error != 0)
			return raise_apart(error, body.size);
		flags |= CHANNEL_LARGE;
	}
	status = record_put_event(&self->events, flags, id, event, texts, body, apart);
	if (status != RING_OK && status != RING_CLOSED && apart)
		apart_remove(name);
	if (status == RING_FULL)
		return PyLong_FromLong(0);
	/* CLOSED here means: published, but nobody to ring. The worker's end is seen through its
	 * process. */
	if (status != RING_OK && status != RING_CLOSED)
		return raise_status(status);
	return PyLong_FromUnsignedLong((unsigned long)self->events.own | 1u);
}

static PyObject *processor_put_event(PyObject *object, PyObject *const *arguments, Py_ssize_t count)
{
	struct processor_channel *self = processor_of(object);
	struct gathered held = {0};
	struct record_bytes texts[CHANNEL_TEXT_PARTS], body;
	struct record_event event;
	PyObject *result = NULL, *strings;
	unsigned long long id;
	unsigned long flags;

	if (self == NULL)
		return NULL;
	if (count != 10 || !PyTuple_Check(arguments[6]) ||
	    PyTuple_Size(arguments[6]) != CHANNEL_TEXT_PARTS - 2) {
		PyErr_SetString(PyExc_TypeError,
		                "put_event takes 10 arguments, the 7th a tuple of 11 texts");
		return NULL;
	}
	strings = arguments[6];
	id = PyLong_AsUnsignedLongLong(arguments[0]);
	flags = PyLong_AsUnsignedLong(arguments[1]);
	event.timestamp_ns = PyLong_AsLongLong(arguments[2]);
	event.offset = PyLong_AsLongLong(arguments[3]);
	event.shard_id = (int32_t)PyLong_AsLong(arguments[4]);
	event.num_shards = (uint32_t)PyLong_AsUnsignedLong(arguments[5]);
	if (PyErr_Occurred())
		return NULL;
	for (int part = 0; part < (int)CHANNEL_TEXT_PARTS - 2; part++)
		if (gather_text(&held, PyTuple_GetItem(strings, part), &texts[part]) < 0)
			goto done;
	if (gather_pairs(&held, 0, arguments[7], &texts[CHANNEL_TEXT_PARTS - 2],
	                 &event.header_count) < 0 ||
	    gather_pairs(&held, 1, arguments[8], &texts[CHANNEL_TEXT_PARTS - 1],
	                 &event.field_count) < 0 ||
	    gather_body(&held, arguments[9], &body) < 0)
		goto done;
	result = put_event_gathered(self, (uint16_t)flags, id, &event, texts, body);
done:
	gather_free(&held);
	return result;
}

static PyObject *processor_put_control(PyObject *object, PyObject *arguments)
{
	struct processor_channel *self = processor_of(object);
	struct record_bytes empty = {"", 0}, payload = {"", 0};
	struct record_reply reply = {0};
	unsigned int kind;
	unsigned long long id = 0;
	Py_ssize_t size = 0;
	enum ring_status status;

	if (self == NULL || !PyArg_ParseTuple(arguments, "I|Ky#", &kind, &id, &payload.data, &size))
		return NULL;
	payload.size = (uint32_t)size;
	status = record_put_reply(&self->events, (uint16_t)kind, 0, id, &reply, empty, empty,
	                          payload, 0);
	if (status == RING_FULL)
		Py_RETURN_FALSE;
	if (status != RING_OK && status != RING_CLOSED)
		return raise_status(status);
	Py_RETURN_TRUE;
}

/* Whether the worker has begun the record that ended at `position` (what put_event returned). */
static PyObject *processor_begun(PyObject *object, PyObject *position)
{
	struct processor_channel *self = processor_of(object);
	unsigned long end = PyLong_AsUnsignedLong(position);
	uint32_t taken;

	if (self == NULL || PyErr_Occurred())
		return NULL;
	/* acquire, pairs with the release of taken in worker_take(): for reading it after the
	 * worker has died any order would do, for a live one we see at least what it had begun
	 * before it rang. */
	taken = atomic_load_explicit(&self->header->taken, memory_order_acquire);
	return PyBool_FromLong((int32_t)(taken - ((uint32_t)end & ~7u)) >= 0);
}

/* Of a large body from the worker. One event has one reply, but any number of publications. */
static void apart_name_of(char name[APART_NAME_BYTES], const struct processor_channel *self,
                          const struct ring_record *record, uint64_t number)
{
	if (record->kind == CHANNEL_PUBLISH)
		apart_name(name, self->name, 'p', number);
	else
		apart_name(name, self->name, 'r', record->id);
}

static PyObject *body_of(struct processor_channel *self, const struct ring_record *record,
                         struct record_bytes body, uint64_t number)
{
	char name[APART_NAME_BYTES];
	PyObject *bytes;
	int fd, error;

	if (!(record->flags & CHANNEL_LARGE))
		return PyBytes_FromStringAndSize(body.data, body.size);
	apart_name_of(name, self, record, number);
	fd = apart_open(name, body.size);
	if (fd < 0)
		return raise_apart(-fd, body.size);
	bytes = PyBytes_FromStringAndSize(NULL, body.size);
	if (bytes != NULL) {
		error = apart_read(fd, PyBytes_AsString(bytes), body.size);
		if (error != 0) {
			Py_CLEAR(bytes);
			raise_apart(error, body.size);
		}
	}
	close(fd);
	return bytes;
}

/* In place of a reply or publication that is over the limit, before a byte of it is read. */
static PyObject *refused(struct processor_channel *self, const struct ring_record *record,
                         const struct record_parts *parts)
{
	const char *what = record->kind == CHANNEL_PUBLISH ? "publication" : "reply";
	char text[160], name[APART_NAME_BYTES];

	if (record->flags & CHANNEL_LARGE) {
		apart_name_of(name, self, record, parts->head.nanoseconds);
		apart_remove(name);
	}
	snprintf(text, sizeof text,
	         "the handler's %s of %" PRIu32
	         " bytes is over the function's maxBodyBytes, %" PRIu32,
	         what, parts->body.size, self->most_body);
	return Py_BuildValue("(iKiis[]y)", (int)record->kind, (unsigned long long)record->id, 500,
	                     0, "text/plain", text);
}

static PyObject *record_tuple(struct processor_channel *self, const struct ring_record *record)
{
	struct record_parts parts;
	PyObject *fields[7] = {NULL}, *tuple = NULL;
	int whole = 1;

	if (!record_parts(record, &parts))
		return raise_status(RING_BROKEN);
	if (record->kind == CHANNEL_REPLY || record->kind == CHANNEL_PUBLISH) {
		if (parts.body.size > self->most_body)
			return refused(self, record, &parts);
	} else if (record->flags & CHANNEL_LARGE) {
		return raise_status(RING_BROKEN); /* the others fit the ring or are cut */
	}
	fields[0] = PyLong_FromLong(record->kind);
	fields[1] = PyLong_FromUnsignedLongLong(record->id);
	fields[2] = PyLong_FromUnsignedLong(parts.head.status);
	fields[3] = PyLong_FromUnsignedLongLong(parts.head.nanoseconds);
	fields[4] = PyUnicode_DecodeUTF8(parts.text.data, parts.text.size, "replace");
	fields[5] = scatter_pairs(parts.headers);
	fields[6] = body_of(self, record, parts.body, parts.head.nanoseconds);
	for (int index = 0; index < 7; index++)
		whole = whole && fields[index] != NULL;
	if (whole)
		tuple = PyTuple_Pack(7, fields[0], fields[1], fields[2], fields[3], fields[4],
		                     fields[5], fields[6]);
	for (int index = 0; index < 7; index++)
		Py_XDECREF(fields[index]);
	if (tuple == NULL && !PyErr_Occurred())
		return raise_status(RING_BROKEN);
	return tuple;
}

static PyObject *processor_drain(PyObject *object, PyObject *const *arguments, Py_ssize_t count)
{
	struct processor_channel *self = processor_of(object);
	struct ring_record record;
	PyObject *list;
	long limit = 64;

	if (self == NULL)
		return NULL;
	if (count > 1) {
		PyErr_SetString(PyExc_TypeError, "drain takes at most one argument");
		return NULL;
	}
	if (count == 1 && (limit = PyLong_AsLong(arguments[0])) == -1 && PyErr_Occurred())
		return NULL;
	list = PyList_New(0);
	while (list != NULL && limit-- > 0) {
		enum ring_status status = ring_peek(&self->replies, &record);
		PyObject *tuple;
		int whole;

		if (status == RING_EMPTY)
			break;
		tuple = status == RING_OK ? record_tuple(self, &record) : raise_status(status);
		whole = tuple != NULL && PyList_Append(list, tuple) == 0;
		Py_XDECREF(tuple);
		if (whole) {
			ring_release(&self->replies, record.size);
			continue;
		}
		/* What was published before the broken record was given. It stays where it is: the
		 * next call finds it first, and raises. */
		if (PyList_Size(list) == 0)
			Py_CLEAR(list);
		else
			PyErr_Clear();
		break;
	}
	return list;
}

static PyObject *processor_sleep(PyObject *object, PyObject *unused)
{
	struct processor_channel *self = processor_of(object);

	(void)unused;
	return self == NULL ? NULL : PyBool_FromLong(ring_sleep(&self->replies));
}

static PyObject *processor_awake(PyObject *object, PyObject *unused)
{
	struct processor_channel *self = processor_of(object);

	(void)unused;
	return self == NULL ? NULL : PyBool_FromLong(ring_awake(&self->replies) == RING_OK);
}

static PyObject *processor_beat(PyObject *object, void *unused)
{
	struct processor_channel *self = processor_of(object);

	(void)unused;
	if (self == NULL)
		return NULL;
	return PyLong_FromUnsignedLong(
	    atomic_load_explicit(&self->header->beat, memory_order_relaxed));
}

static PyObject *processor_limit(PyObject *object, PyObject *arguments)
{
	struct processor_channel *self = processor_of(object);
	unsigned int most_body;
	int uid = -1, gid = -1;

	if (self == NULL || !PyArg_ParseTuple(arguments, "I|ii", &most_body, &uid, &gid))
		return NULL;
	self->most_body = most_body;
	self->worker_uid = (uid_t)uid;
	self->worker_gid = (gid_t)gid;
	Py_RETURN_NONE;
}

static PyMethodDef processor_methods[] = {
    {"put_event", (PyCFunction)(void (*)(void))processor_put_event, METH_FASTCALL,
     "See _channel.pyi."},
    {"limit", processor_limit, METH_VARARGS, "See _channel.pyi."},
    {"put_control", processor_put_control, METH_VARARGS, "See _channel.pyi."},
    {"begun", processor_begun, METH_O, "See _channel.pyi."},
    {"drain", (PyCFunction)(void (*)(void))processor_drain, METH_FASTCALL, "See _channel.pyi."},
    {"sleep", processor_sleep, METH_NOARGS, "See _channel.pyi."},
    {"awake", processor_awake, METH_NOARGS, "See _channel.pyi."},
    {"close", processor_close, METH_NOARGS, "See _channel.pyi."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef processor_properties[] = {
    {"beat", processor_beat, NULL, "See _channel.pyi.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot processor_slots[] = {
    {Py_tp_init, processor_init},        {Py_tp_dealloc, processor_dealloc},
    {Py_tp_methods, processor_methods},  {Py_tp_getset, processor_properties},
    {Py_tp_doc, "The processor's end."}, {0, NULL},
};

static PyType_Spec processor_spec = {"shmem._channel.ProcessorChannel",
                                     sizeof(struct processor_channel), 0, Py_TPFLAGS_DEFAULT,
                                     processor_slots};

/* ---------------------------------------------------------------------------------------------
 * worker's end */

struct worker_channel {
	PyObject_HEAD void *segment;
	size_t segment_bytes;
	struct channel_header *header;
	struct ring events, replies;
	struct ring_spin spin;
	struct ring_record record; /* the begun one, while `begun` */
	struct record_bytes body;
	int begun;
	int body_fd;        /* of a large body once opened, else -1 */
	void *body_mapping; /* of a large body once viewed */
	Py_ssize_t views;
	uint64_t begun_ns;
	uint64_t last_id;   /* whose handler's time is known, for reply() */
	uint64_t published; /* how many publications have been numbered */
	char name[NAME_BYTES];
};

static const char *map_segment(struct worker_channel *self)
{
	char path[NAME_BYTES + 2];
	struct stat found;
	int fd;

	snprintf(path, sizeof path, "/%s", self->name);
	fd = shm_open(path, O_RDWR | O_CLOEXEC, 0);
	if (fd < 0)
		return strerror(errno);
	if (fstat(fd, &found) != 0 || found.st_size < (off_t)CHANNEL_HEADER_BYTES) {
		close(fd);
		return "too small to be a channel";
	}
	self->segment_bytes = (size_t)found.st_size;
	self->segment = mmap(NULL, self->segment_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	close(fd);
	if (self->segment == MAP_FAILED) {
		self->segment = NULL;
		return strerror(errno);
	}
	return NULL;
}

/* At most this long does a worker spin before it sleeps; not at all on one core.  HEADRACE_SPIN_US
 * overrides. */
static uint32_t spin_most_ns(void)
{
	const char *given = getenv("HEADRACE_SPIN_US");

	if (given != NULL)
		return (uint32_t)strtoul(given, NULL, 10) * 1000u;
	return sysconf(_SC_NPROCESSORS_ONLN) > 1 ? 20000u : 0u;
}

static int open_worker(struct worker_channel *self, PyObject *arguments, PyObject *keywords)
{
	static char *names[] = {"name", "event_fd", "reply_fd", NULL};
	const char *name, *why;
	int event_fd, reply_fd;
	enum ring_status status;

	if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "sii", names, &name, &event_fd,
	                                 &reply_fd))
		return -1;
	if (strlen(name) >= NAME_BYTES) {
		PyErr_SetString(PyExc_ValueError, "channel name too long");
		return -1;
	}
	strcpy(self->name, name);
	why = map_segment(self);
	if (why != NULL) {
		PyErr_Format(RingClosed, "cannot map the segment %s: %s", name, why);
		return -1;
	}
	status = channel_open(self->segment, self->segment_bytes, &self->events, &self->replies);
	if (status != RING_OK) {
		raise_status(status);
		return -1;
	}
	self->header = self->segment;
	self->events.bell = event_fd;
	self->replies.bell = reply_fd;
	ring_spin_init(&self->spin, spin_most_ns());
	atomic_store_explicit(&self->header->worker_pid, (uint32_t)getpid(), memory_order_relaxed);
	return 0;
}

/* Opened when made: there is no such object without a segment, so no method has to ask. */
static PyObject *worker_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
	allocfunc alloc = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
	PyObject *object = alloc(type, 0);

	if (object == NULL)
		return NULL;
	((struct worker_channel *)object)->body_fd = -1;
	if (open_worker((struct worker_channel *)object, arguments, keywords) == 0)
		return object;
	Py_DECREF(object);
	return NULL;
}

static void close_body(struct worker_channel *self)
{
	if (self->body_mapping != NULL)
		munmap(self->body_mapping, self->body.size);
	if (self->body_fd >= 0)
		close(self->body_fd);
	self->body_mapping = NULL;
	self->body_fd = -1;
}

static void worker_dealloc(PyObject *object)
{
	struct worker_channel *self = (struct worker_channel *)object;

	close_body(self);
	if (self->segment != NULL)
		munmap(self->segment, self->segment_bytes);
	channel_free(object);
}

/* Only this side writes it, so a load and a store do: an atomic addition would hold up the core. */
static void grow_beat(struct worker_channel *self)
{
	uint32_t beat = atomic_load_explicit(&self->header->beat, memory_order_relaxed);

	atomic_store_explicit(&self->header->beat, beat + 1, memory_order_relaxed);
}

static int begin_record(struct worker_channel *self, uint32_t *head_bytes)
{
	struct record_parts parts;

	if (self->record.kind == CHANNEL_EVENT) {
		if (!record_event_head(&self->record, head_bytes, &self->body))
			return 0;
	} else {
		if (!record_parts(&self->record, &parts))
			return 0;
		*head_bytes = 0;
		self->body = parts.body;
	}
	self->begun = 1;
	self->begun_ns = channel_now_ns();
	self->last_id = self->record.id;
	atomic_store_explicit(&self->header->hand_since_ms, (uint32_t)(self->begun_ns / 1000000u),
	                      memory_order_relaxed);
	atomic_store_explicit(&self->header->in_hand, 1, memory_order_relaxed);
	grow_beat(self);
	/* release: a processor that reads this after our death must not deal an event again whose
	 * handler had begun; the store comes before the handler's first instruction in program
	 * order, and is in memory once we are dead. */
	atomic_store_explicit(&self->header->taken, self->events.own + self->record.size,
	                      memory_order_release);
	return 1;
}

/* What take() gives. Built by hand: reading a format string costs more than making the objects. */
static PyObject *taken_tuple(const struct worker_channel *self, uint32_t head_bytes)
{
	const char *head = (const char *)self->record.bytes + CHANNEL_RECORD_HEADER;
	PyObject *fields[4] = {PyLong_FromLong(self->record.kind),
	                       PyLong_FromLong(self->record.flags),
	                       PyLong_FromUnsignedLongLong(self->record.id),
	                       PyBytes_FromStringAndSize(head, (Py_ssize_t)head_bytes)};
	PyObject *tuple = NULL;

	if (fields[0] != NULL && fields[1] != NULL && fields[2] != NULL && fields[3] != NULL)
		tuple = PyTuple_Pack(4, fields[0], fields[1], fields[2], fields[3]);
	for (int index = 0; index < 4; index++)
		Py_XDECREF(fields[index]);
	return tuple;
}

static PyObject *worker_take(PyObject *object, PyObject *unused)
{
	struct worker_channel *self = (struct worker_channel *)object;
	enum ring_status status;
	uint32_t head_bytes;

	(void)unused;
	if (self->begun) {
		PyErr_SetString(PyExc_RuntimeError,
		                "release the record in hand before taking the next");
		return NULL;
	}
	status = ring_peek(&self->events, &self->record);
	if (status == RING_EMPTY)
		Py_RETURN_NONE;
	if (status != RING_OK || !begin_record(self, &head_bytes))
		return raise_status(RING_BROKEN);
	return taken_tuple(self, head_bytes);
}

static int open_body(struct worker_channel *self)
{
	char name[APART_NAME_BYTES];

	if (self->body_fd >= 0)
		return 0;
	apart_name(name, self->name, 'e', self->record.id);
	self->body_fd = apart_open(name, self->body.size);
	if (self->body_fd >= 0)
		return 0;
	raise_apart(-self->body_fd, self->body.size);
	self->body_fd = -1;
	return -1;
}

static int require_begun(struct worker_channel *self)
{
	if (self->begun)
		return 0;
	PyErr_SetString(PyExc_RuntimeError, "no record is begun: its body is gone");
	return -1;
}

static PyObject *worker_body(PyObject *object, PyObject *unused)
{
	struct worker_channel *self = (struct worker_channel *)object;
	PyObject *bytes;
	int error;

	(void)unused;
	if (require_begun(self) < 0)
		return NULL;
	if (!(self->record.flags & CHANNEL_LARGE))
		return PyBytes_FromStringAndSize(self->body.data, self->body.size);
	if (open_body(self) < 0)
		return NULL;
	bytes = PyBytes_FromStringAndSize(NULL, self->body.size);
	if (bytes == NULL)
		return NULL;
	error = lseek(self->body_fd, 0, SEEK_SET) == 0
	            ? apart_read(self->body_fd, PyBytes_AsString(bytes), self->body.size)
	            : errno;
	if (error == 0)
		return bytes;
	Py_DECREF(bytes);
	return raise_apart(error, self->body.size);
}

static int worker_getbuffer(PyObject *object, Py_buffer *view, int flags)
{
	struct worker_channel *self = (struct worker_channel *)object;
	const char *data = self->body.data;

	if (require_begun(self) < 0)
		return -1;
	if ((self->record.flags & CHANNEL_LARGE) && self->body_mapping == NULL) {
		void *mapping;

		if (open_body(self) < 0)
			return -1;
		mapping = mmap(NULL, self->body.size, PROT_READ, MAP_SHARED, self->body_fd, 0);
		if (mapping == MAP_FAILED) {
			raise_apart(errno, self->body.size);
			return -1;
		}
		self->body_mapping = mapping;
	}
	if (self->body_mapping != NULL)
		data = self->body_mapping;
	if (PyBuffer_FillInfo(view, object, (void *)data, self->body.size, 1, flags) < 0)
		return -1;
	self->views++;
	return 0;
}

static void worker_releasebuffer(PyObject *object, Py_buffer *view)
{
	(void)view;
	((struct worker_channel *)object)->views--;
}

static PyObject *worker_view(PyObject *object, PyObject *unused)
{
	(void)unused;
	return PyMemoryView_FromObject(object);
}

static PyObject *worker_release(PyObject *object, PyObject *unused)
{
	struct worker_channel *self = (struct worker_channel *)object;

	(void)unused;
	if (!self->begun)
		Py_RETURN_NONE;
	if (self->views > 0) {
		PyErr_SetString(PyExc_BufferError, "a view of this event's body is still in use");
		return NULL;
	}
	if (self->record.flags & CHANNEL_LARGE) {
		char name[APART_NAME_BYTES];

		apart_name(name, self->name, 'e', self->record.id);
		if (self->body_fd < 0)
			apart_remove(name); /* nobody looked at the body */
		close_body(self);
	}
	self->begun = 0;
	atomic_store_explicit(&self->header->in_hand, 0, memory_order_relaxed);
	ring_release(&self->events, self->record.size);
	Py_RETURN_NONE;
}

static PyObject *worker_wait(PyObject *object, PyObject *const *arguments, Py_ssize_t count)
{
	struct worker_channel *self = (struct worker_channel *)object;
	double timeout_s = -1.0;
	enum ring_status status;

	if (count > 1) {
		PyErr_SetString(PyExc_TypeError, "wait takes at most one argument");
		return NULL;
	}
	if (count == 1 && (timeout_s = PyFloat_AsDouble(arguments[0])) == -1.0 && PyErr_Occurred())
		return NULL;
	do {
		Py_BEGIN_ALLOW_THREADS;
		status = ring_wait(&self->events, &self->spin,
		                   timeout_s < 0 ? -1 : (int64_t)(timeout_s * 1e9));
		Py_END_ALLOW_THREADS;
		if (status == RING_INTERRUPTED && PyErr_CheckSignals() < 0)
			return NULL;
	} while (status == RING_INTERRUPTED);
	grow_beat(self);
	if (status == RING_OK || status == RING_TIMEOUT)
		return PyBool_FromLong(status == RING_OK);
	return raise_status(status);
}

static PyObject *worker_sleep(PyObject *object, PyObject *unused)
{
	(void)unused;
	return PyBool_FromLong(ring_sleep(&((struct worker_channel *)object)->events));
}

static PyObject *worker_awake(PyObject *object, PyObject *unused)
{
	struct worker_channel *self = (struct worker_channel *)object;
	struct ring_record record;

	(void)unused;
	grow_beat(self);
	if (ring_awake(&self->events) != RING_OK && ring_peek(&self->events, &record) == RING_EMPTY)
		return raise_status(RING_CLOSED);
	Py_RETURN_NONE;
}

/* Put a record into the reply ring, waiting without the GIL while it is full. */
static int put_reply_waiting(struct worker_channel *self, uint16_t kind, uint16_t flags,
                             uint64_t id, const struct record_reply *reply,
                             struct record_bytes text, struct record_bytes headers,
                             struct record_bytes body, int apart)
{
	enum ring_status status;

	for (uint32_t attempt = 0;; attempt++) {
		status = record_put_reply(&self->replies, kind, flags, id, reply, text, headers,
		                          body, apart);
		if (status == RING_OK)
			return 0;
		if (status != RING_FULL)
			break;
		Py_BEGIN_ALLOW_THREADS;
		status = ring_wait_room(&self->replies, attempt);
		Py_END_ALLOW_THREADS;
		if (status == RING_INTERRUPTED && PyErr_CheckSignals() < 0)
			return -1;
		if (status == RING_CLOSED)
			break;
	}
	raise_status(status);
	return -1;
}

static int put_reply_or_apart(struct worker_channel *self, uint16_t kind, uint64_t id,
                              const struct record_reply *reply, struct record_bytes text,
                              struct record_bytes headers, struct record_bytes body)
{
	const struct record_bytes texts[2] = {text, headers};
	char name[APART_NAME_BYTES];
	int error;

	if (!body_is_apart(&self->replies, CHANNEL_REPLY_HEAD, texts, 2, body))
		return put_reply_waiting(self, kind, 0, id, reply, text, headers, body, 0);
	if (kind == CHANNEL_PUBLISH)
		apart_name(name, self->name, 'p', reply->nanoseconds);
	else
		apart_name(name, self->name, 'r', id);
	error = apart_write(name, body.data, body.size, (uid_t)-1, (gid_t)-1);
	if (error != 0) {
		raise_apart(error, body.size);
		return -1;
	}
	if (put_reply_waiting(self, kind, CHANNEL_LARGE, id, reply, text, headers, body, 1) == 0)
		return 0;
	apart_remove(name);
	return -1;
}

static PyObject *worker_reply(PyObject *object, PyObject *const *arguments, Py_ssize_t count)
{
	struct worker_channel *self = (struct worker_channel *)object;
	struct gathered held = {0};
	struct record_reply reply = {0};
	struct record_bytes text, headers = {"", 0}, body;
	PyObject *items = NULL;
	unsigned long long id;
	int put = -1;

	if (count != 5) {
		PyErr_SetString(PyExc_TypeError,
		                "reply takes (id, status, content_type, headers, body)");
		return NULL;
	}
	id = PyLong_AsUnsignedLongLong(arguments[0]);
	reply.status = (uint32_t)PyLong_AsUnsignedLong(arguments[1]);
	if (PyErr_Occurred())
		return NULL;
	if (id == self->last_id)
		reply.nanoseconds = channel_now_ns() - self->begun_ns;
	if (gather_text(&held, arguments[2], &text) < 0 ||
	    gather_body(&held, arguments[4], &body) < 0)
		goto done;
	if (arguments[3] != Py_None) {
		if (PyDict_Check(arguments[3]))
			items = PyDict_Items(arguments[3]);
		else
			Py_INCREF(items = arguments[3]);
		if (items == NULL ||
		    gather_pairs(&held, 0, items, &headers, &reply.header_count) < 0)
			goto done;
	}
	put = put_reply_or_apart(self, CHANNEL_REPLY, id, &reply, text, headers, body);
done:
	Py_XDECREF(items);
	gather_free(&held);
	if (put < 0)
		return NULL;
	Py_RETURN_NONE;
}

static PyObject *worker_publish(PyObject *object, PyObject *arguments)
{
	struct worker_channel *self = (struct worker_channel *)object;
	struct gathered held = {0};
	struct record_reply reply = {0};
	struct record_bytes target, headers, body;
	PyObject *target_object, *pairs, *body_object;
	unsigned long long id;
	int put = -1;

	if (!PyArg_ParseTuple(arguments, "KOOO", &id, &target_object, &pairs, &body_object))
		return NULL;
	if (gather_text(&held, target_object, &target) == 0 &&
	    gather_pairs(&held, 0, pairs, &headers, &reply.header_count) == 0 &&
	    gather_body(&held, body_object, &body) == 0) {
		reply.nanoseconds = ++self->published;
		put = put_reply_or_apart(self, CHANNEL_PUBLISH, id, &reply, target, headers, body);
	}
	gather_free(&held);
	if (put < 0)
		return NULL;
	Py_RETURN_NONE;
}

static PyObject *worker_log(PyObject *object, PyObject *arguments)
{
	struct worker_channel *self = (struct worker_channel *)object;
	struct gathered held = {0};
	struct record_reply reply = {0};
	struct record_bytes message, fields, none = {"", 0};
	PyObject *message_object, *fields_object;
	unsigned long long id;
	uint32_t most = self->replies.size / 8;
	int put = -1;

	if (!PyArg_ParseTuple(arguments, "KIKOO", &id, &reply.status, &reply.nanoseconds,
	                      &message_object, &fields_object))
		return NULL;
	if (gather_text(&held, message_object, &message) == 0 &&
	    gather_text(&held, fields_object, &fields) == 0) {
		/* A log line is never a reason to fail: cut what does not fit; fields are JSON, so
		 * all or nothing. */
		if (message.size > most)
			message.size = most;
		if (fields.size > most - 128)
			fields.size = 0;
		put = put_reply_waiting(self, CHANNEL_LOG, 0, id, &reply, message, none, fields, 0);
	}
	gather_free(&held);
	if (put < 0)
		return NULL;
	Py_RETURN_NONE;
}

static PyObject *worker_control(PyObject *object, PyObject *arguments)
{
	struct worker_channel *self = (struct worker_channel *)object;
	struct record_bytes none = {"", 0}, payload = {"", 0};
	struct record_reply reply = {0};
	unsigned int kind;
	Py_ssize_t size = 0;

	if (!PyArg_ParseTuple(arguments, "I|y#", &kind, &payload.data, &size))
		return NULL;
	payload.size =
	    (uint32_t)size < self->replies.size / 8 ? (uint32_t)size : self->replies.size / 8;
	if (kind == CHANNEL_READY)
		atomic_store_explicit(&self->header->state, 1, memory_order_relaxed);
	if (put_reply_waiting(self, (uint16_t)kind, 0, 0, &reply, none, none, payload, 0) < 0)
		return NULL;
	Py_RETURN_NONE;
}

static PyObject *worker_salt(PyObject *object, void *unused)
{
	(void)unused;
	return PyLong_FromUnsignedLongLong(((struct worker_channel *)object)->header->salt);
}

static PyObject *worker_fd(PyObject *object, void *unused)
{
	(void)unused;
	return PyLong_FromLong(((struct worker_channel *)object)->events.bell);
}

static PyMethodDef worker_methods[] = {
    {"take", worker_take, METH_NOARGS, "See _channel.pyi."},
    {"body", worker_body, METH_NOARGS, "See _channel.pyi."},
    {"view", worker_view, METH_NOARGS, "See _channel.pyi."},
    {"release", worker_release, METH_NOARGS, "See _channel.pyi."},
    {"wait", (PyCFunction)(void (*)(void))worker_wait, METH_FASTCALL, "See _channel.pyi."},
    {"sleep", worker_sleep, METH_NOARGS, "See _channel.pyi."},
    {"awake", worker_awake, METH_NOARGS, "See _channel.pyi."},
    {"reply", (PyCFunction)(void (*)(void))worker_reply, METH_FASTCALL, "See _channel.pyi."},
    {"publish", worker_publish, METH_VARARGS, "See _channel.pyi."},
    {"log", worker_log, METH_VARARGS, "See _channel.pyi."},
    {"control", worker_control, METH_VARARGS, "See _channel.pyi."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef worker_properties[] = {
    {"salt", worker_salt, NULL, "See _channel.pyi.", NULL},
    {"fd", worker_fd, NULL, "See _channel.pyi.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot worker_slots[] = {
    {Py_tp_new, worker_new},
    {Py_tp_dealloc, worker_dealloc},
    {Py_tp_methods, worker_methods},
    {Py_tp_getset, worker_properties},
    {Py_bf_getbuffer, worker_getbuffer},
    {Py_bf_releasebuffer, worker_releasebuffer},
    {Py_tp_doc, "The worker's end."},
    {0, NULL},
};

static PyType_Spec worker_spec = {"shmem._channel.WorkerChannel", sizeof(struct worker_channel), 0,
                                  Py_TPFLAGS_DEFAULT, worker_slots};

/* ---------------------------------------------------------------------------------------------------
 * module */

static PyObject *die_with_parent(PyObject *module, PyObject *parent)
{
	long pid = PyLong_AsLong(parent);

	(void)module;
	if (pid == -1 && PyErr_Occurred())
		return NULL;
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0)
		return PyErr_SetFromErrno(PyExc_OSError);
	if (getppid() != (pid_t)pid)
		_exit(0); /* it ended before we asked */
	Py_RETURN_NONE;
}

/* For this process and all it starts, for ever: no program it runs gets rights that it lacks. */
static PyObject *no_new_privileges(PyObject *module, PyObject *unused)
{
	(void)module;
	(void)unused;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
		return PyErr_SetFromErrno(PyExc_OSError);
	Py_RETURN_NONE;
}

static PyMethodDef module_methods[] = {
    {"no_new_privileges", no_new_privileges, METH_NOARGS, "See _channel.pyi."},
    {"die_with_parent", die_with_parent, METH_O, "See _channel.pyi."},
    {NULL, NULL, 0, NULL},
};

static int add_type(PyObject *module, const char *name, PyType_Spec *spec)
{
	PyObject *type = PyType_FromModuleAndSpec(module, spec, NULL);
	int added = type == NULL ? -1 : PyModule_AddObjectRef(module, name, type);

	Py_XDECREF(type);
	return added;
}

static int add_error(PyObject *module, const char *name, const char *full, PyObject **error)
{
	if (*error == NULL)
		*error = PyErr_NewException(full, NULL, NULL);
	return *error == NULL ? -1 : PyModule_AddObjectRef(module, name, *error);
}

static int module_exec(PyObject *module)
{
	static const struct {
		const char *name;
		long value;
	} constants[] = {
	    {"EVENT", CHANNEL_EVENT},     {"REPLY", CHANNEL_REPLY},
	    {"LOG", CHANNEL_LOG},         {"STOP", CHANNEL_STOP},
	    {"DRAIN", CHANNEL_DRAIN},     {"READY", CHANNEL_READY},
	    {"FAILED", CHANNEL_FAILED},   {"DRAINED", CHANNEL_DRAINED},
	    {"PUBLISH", CHANNEL_PUBLISH}, {"BATCH_END", CHANNEL_BATCH_END},
	    {"MORE", CHANNEL_MORE},       {"BATCH", CHANNEL_BATCH},
	    {"LARGE", CHANNEL_LARGE},     {"JSON_BODY", CHANNEL_JSON_BODY},
	    {"PROTOCOL", CHANNEL_ABI},    {"HEADER_BYTES", CHANNEL_HEADER_BYTES},
	};

	for (size_t index = 0; index < sizeof constants / sizeof *constants; index++)
		if (PyModule_AddIntConstant(module, constants[index].name, constants[index].value) <
		    0)
			return -1;
	if (add_error(module, "RingBroken", "shmem._channel.RingBroken", &RingBroken) < 0 ||
	    add_error(module, "RingClosed", "shmem._channel.RingClosed", &RingClosed) < 0 ||
	    add_error(module, "NoSpace", "shmem._channel.NoSpace", &NoSpace) < 0)
		return -1;
	if (gather_init() < 0)
		return -1;
	if (add_type(module, "ProcessorChannel", &processor_spec) < 0)
		return -1;
	return add_type(module, "WorkerChannel", &worker_spec);
}

static PyModuleDef_Slot module_slots[] = {{Py_mod_exec, module_exec}, {0, NULL}};

static struct PyModuleDef module_definition = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "shmem._channel",
    .m_doc = "The channel between a processor and a worker.",
    .m_methods = module_methods,
    .m_slots = module_slots,
};

PyMODINIT_FUNC PyInit__channel(void)
{
	return PyModuleDef_Init(&module_definition);
}
