/* Large bodies: see apart.h. */
#define _GNU_SOURCE
#include "apart.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

void apart_name(char name[APART_NAME_BYTES], const char *channel, char way, uint64_t id)
{
	snprintf(name, APART_NAME_BYTES, "/%s-%c%" PRIx64, channel, way, id);
}

static int give_up(int fd, const char *name, int error)
{
	close(fd);
	shm_unlink(name);
	return error;
}

int apart_write(const char *name, const char *data, size_t size, uid_t uid, gid_t gid)
{
	int fd = shm_open(name, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0600);

	if (fd < 0)
		return errno;
	if ((uid != (uid_t)-1 || gid != (gid_t)-1) && fchown(fd, uid, gid) != 0)
		return give_up(fd, name, errno);
	while (size > 0) {
		ssize_t put = write(fd, data, size);

		if (put < 0 && errno == EINTR)
			continue;
		if (put <= 0)
			return give_up(fd, name, put < 0 ? errno : ENOSPC);
		data += put;
		size -= (size_t)put;
	}
	close(fd);
	return 0;
}

int apart_open(const char *name, size_t size)
{
	struct stat found;
	/* O_NONBLOCK: a pipe under that name would hold us until somebody writes to it. */
	int fd = shm_open(name, O_RDONLY | O_CLOEXEC | O_NONBLOCK, 0);

	if (fd < 0)
		return -errno;
	shm_unlink(name);
	/* Shorter than the record claims: reading on would end early, mapping it would be SIGBUS.
	 */
	if (fstat(fd, &found) != 0 || !S_ISREG(found.st_mode) || found.st_size < 0 ||
	    (uint64_t)found.st_size != size) {
		close(fd);
		return -EBADMSG;
	}
	return fd;
}

int apart_read(int fd, char *to, size_t size)
{
	while (size > 0) {
		ssize_t got = read(fd, to, size);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return got < 0 ? errno : EBADMSG;
		to += got;
		size -= (size_t)got;
	}
	return 0;
}

void apart_remove(const char *name)
{
	shm_unlink(name);
}
