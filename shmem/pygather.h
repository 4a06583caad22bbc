/* From Python objects to bytes that can be copied into a slot.  Everything here happens before a
 * slot is reserved. */
#ifndef HEADRACE_PYGATHER_H
#define HEADRACE_PYGATHER_H

#ifndef Py_LIMITED_API
#define Py_LIMITED_API 0x030B0000
#endif
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "record.h"

/* What gathering holds until the record is published: encoded copies, the pairs' block, the body's
 * buffer. */
struct gathered {
	PyObject *kept;
	Py_buffer body;
	int has_body;
	char *block[2];
};

int gather_init(void); /* once, when the module is loaded */
int gather_text(struct gathered *held, PyObject *object, struct record_bytes *text);
int gather_pairs(struct gathered *held, int which, PyObject *pairs, struct record_bytes *block,
                 uint32_t *count);
int gather_body(struct gathered *held, PyObject *object, struct record_bytes *body);
void gather_free(struct gathered *held);
PyObject *scatter_pairs(struct record_bytes block);

#endif
