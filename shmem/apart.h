/* Bodies too large for a ring travel in a segment of their own, named after the channel and the
 * record's id.
 *
 * Who frees it: the reader removes the name as soon as it has opened it; what nobody opened is
 * removed by the processor, by name, when the channel closes.  Written with write(2), not through a
 * mapping: tmpfs then reports a full /dev/shm as an error, where a store to a mapping would be
 * SIGBUS. */
#ifndef HEADRACE_APART_H
#define HEADRACE_APART_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define APART_NAME_BYTES 160

/* `way` is 'e' for an event's body, 'r' for a reply's. */
void apart_name(char name[APART_NAME_BYTES], const char *channel, char way, uint64_t id);
/* 0, or errno. `uid` and `gid` of who may open it, where not -1: a worker may run as another user.
 */
int apart_write(const char *name, const char *data, size_t size, uid_t uid, gid_t gid);
int apart_open(const char *name, size_t size); /* descriptor, or -errno; removes the name */
int apart_read(int fd, char *to, size_t size); /* 0, or errno */
void apart_remove(const char *name);

#endif
