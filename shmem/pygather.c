/* Gathering: see pygather.h.  Each function returns 0, or -1 with a Python exception set. */
#include "pygather.h"

#include <stdlib.h>
#include <string.h>

static int too_long(void)
{
	PyErr_SetString(PyExc_ValueError, "text or body of 1 GiB or more");
	return -1;
}

static int set_bytes(struct record_bytes *bytes, const char *data, Py_ssize_t size)
{
	if (size > 0x3fffffff)
		return too_long();
	bytes->data = data;
	bytes->size = (uint32_t)size;
	return 0;
}

static PyObject *no_text; /* the str "": one object for the whole interpreter */

int gather_init(void)
{
	if (no_text == NULL)
		no_text = PyUnicode_FromStringAndSize("", 0);
	return no_text == NULL ? -1 : 0;
}

/* bytes as they are, str as UTF-8 (lone surrogates as the bytes they stand for, else as "?"). */
int gather_text(struct gathered *held, PyObject *object, struct record_bytes *text)
{
	const char *data;
	char *raw;
	Py_ssize_t size;
	PyObject *encoded;

	/* The usual cases first. Most of an event's texts are empty, and there is one empty str.
	 * The rest are exact str: comparing types is cheaper than a call that reads a type's flags.
	 */
	if (object == no_text) {
		text->data = "";
		text->size = 0;
		return 0;
	}
	if (Py_IS_TYPE(object, &PyUnicode_Type)) {
		data = PyUnicode_AsUTF8AndSize(object, &size);
		if (data != NULL)
			return set_bytes(text, data, size);
		PyErr_Clear();
	}
	if (PyBytes_Check(object)) {
		if (PyBytes_AsStringAndSize(object, &raw, &size) < 0)
			return -1;
		return set_bytes(text, raw, size);
	}
	if (!PyUnicode_Check(object)) {
		PyErr_Format(PyExc_TypeError, "text must be str or bytes, not %R",
		             (PyObject *)Py_TYPE(object));
		return -1;
	}
	data = PyUnicode_AsUTF8AndSize(object, &size);
	if (data != NULL)
		return set_bytes(text, data, size);
	PyErr_Clear();
	encoded = PyUnicode_AsEncodedString(object, "utf-8", "surrogateescape");
	if (encoded == NULL) {
		PyErr_Clear();
		encoded = PyUnicode_AsEncodedString(object, "utf-8", "replace");
	}
	if (encoded == NULL)
		return -1;
	if (held->kept == NULL)
		held->kept = PyList_New(0);
	if (held->kept == NULL || PyList_Append(held->kept, encoded) < 0) {
		Py_DECREF(encoded);
		return -1;
	}
	Py_DECREF(encoded); /* the list keeps it */
	PyBytes_AsStringAndSize(encoded, &raw, &size);
	return set_bytes(text, raw, size);
}

static PyObject *item_of(PyObject *sequence, Py_ssize_t index)
{
	return PyTuple_Check(sequence) ? PyTuple_GetItem(sequence, index)
	                               : PyList_GetItem(sequence, index);
}

static int append_pair(struct gathered *held, PyObject *pair, char **block, size_t *used,
                       size_t *room)
{
	struct record_bytes name, value;
	size_t need;

	if (!PyTuple_Check(pair) || PyTuple_Size(pair) != 2) {
		PyErr_SetString(PyExc_TypeError, "headers and fields must be (name, value) tuples");
		return -1;
	}
	if (gather_text(held, PyTuple_GetItem(pair, 0), &name) < 0 ||
	    gather_text(held, PyTuple_GetItem(pair, 1), &value) < 0)
		return -1;
	need = *used + 8 + name.size + value.size;
	if (need > 0x3fffffff)
		return too_long();
	if (need > *room) {
		size_t larger = need * 2 < 512 ? 512 : need * 2;
		char *moved = realloc(*block, larger);

		if (moved == NULL) {
			PyErr_NoMemory();
			return -1;
		}
		*block = moved;
		*room = larger;
	}
	memcpy(*block + *used, &name.size, 4);
	memcpy(*block + *used + 4, &value.size, 4);
	memcpy(*block + *used + 8, name.data, name.size);
	memcpy(*block + *used + 8 + name.size, value.data, value.size);
	*used = need;
	return 0;
}

/* A list or tuple of (name, value) as one block.  `bytes` pass as they are, with `count`
 * CHANNEL_RAW_QUERY (fields). */
int gather_pairs(struct gathered *held, int which, PyObject *pairs, struct record_bytes *block,
                 uint32_t *count)
{
	size_t used = 0, room = 0;
	Py_ssize_t number;

	block->data = "";
	block->size = 0;
	*count = 0;
	if (PyBytes_Check(pairs)) {
		if (gather_text(held, pairs, block) < 0)
			return -1;
		*count = block->size == 0 ? 0 : CHANNEL_RAW_QUERY;
		return 0;
	}
	if (!PyTuple_Check(pairs) && !PyList_Check(pairs)) {
		PyErr_SetString(PyExc_TypeError,
		                "headers and fields must be a list or tuple of (name, value)");
		return -1;
	}
	number = PyTuple_Check(pairs) ? PyTuple_Size(pairs) : PyList_Size(pairs);
	for (Py_ssize_t index = 0; index < number; index++) {
		if (append_pair(held, item_of(pairs, index), &held->block[which], &used, &room) < 0)
			return -1;
	}
	if (number > 0)
		block->data = held->block[which];
	block->size = (uint32_t)used;
	*count = (uint32_t)number;
	return 0;
}

/* str as UTF-8, or anything with the buffer protocol. */
int gather_body(struct gathered *held, PyObject *object, struct record_bytes *body)
{
	if (PyUnicode_Check(object) || PyBytes_Check(object))
		return gather_text(held, object, body);
	if (PyObject_GetBuffer(object, &held->body, PyBUF_SIMPLE) < 0)
		return -1;
	held->has_body = 1;
	return set_bytes(body, held->body.buf, held->body.len);
}

void gather_free(struct gathered *held)
{
	Py_XDECREF(held->kept);
	if (held->has_body)
		PyBuffer_Release(&held->body);
	free(held->block[0]);
	free(held->block[1]);
}

/* A block of pairs as a list of (str, str).  NULL without an exception: the block does not fit. */
PyObject *scatter_pairs(struct record_bytes block)
{
	struct record_bytes name, value;
	PyObject *list = PyList_New(0);
	int more;

	while (list != NULL && (more = record_next_pair(&block, &name, &value)) != 0) {
		PyObject *pair = NULL;

		if (more > 0) {
			PyObject *left = PyUnicode_DecodeUTF8(name.data, name.size, "replace");
			PyObject *right = PyUnicode_DecodeUTF8(value.data, value.size, "replace");

			if (left != NULL && right != NULL)
				pair = PyTuple_Pack(2, left, right);
			Py_XDECREF(left);
			Py_XDECREF(right);
		}
		if (pair == NULL || PyList_Append(list, pair) < 0)
			Py_CLEAR(list);
		Py_XDECREF(pair);
	}
	return list;
}
