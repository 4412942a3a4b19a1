/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The unnamed file. Places are given out without a lock; what lies at them is written once.
 */
#include "stores/sqlite/logstore.h"

#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

struct stored { /* what a source's context points to */
	int fd;
	uint64_t offset;
	struct stored *next;
};

struct logstore {
	int fd;
	_Atomic uint64_t end;
	_Atomic(struct stored *) stored; /* all there are, to be freed */
};

int logstore_unnamed(int root_fd, struct im_error *err)
{
	int fd = openat(root_fd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (fd >= 0)
		return fd;
	/* a file system without O_TMPFILE; the stage is ours alone */
	static const char name[] = ".imvault-log";
	fd = openat(root_fd, name, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return im_fail_errno(err, IM_EIO, errno, "cannot make a temporary file in the restore's stage");
	unlinkat(root_fd, name, 0);
	return fd;
}

int logstore_open(int root_fd, struct logstore **ret, struct im_error *err)
{
	struct logstore *s = calloc(1, sizeof *s);
	if (!s)
		return im_fail(err, IM_ENOMEM, "out of memory");
	s->fd = logstore_unnamed(root_fd, err);
	if (s->fd < 0) {
		int rc = s->fd;
		free(s);
		return rc;
	}
	*ret = s;
	return 0;
}

static int read_stored(void *context, uint64_t offset, void *ret, size_t len, struct im_error *err)
{
	const struct stored *s = context;
	ssize_t n = im_pread_full(s->fd, ret, len, s->offset + offset, err, "the log in the restore's stage");
	if (n < 0)
		return (int)n;
	return (size_t)n == len ? 0 : im_fail(err, IM_EIO, "the log in the restore's stage became shorter");
}

int logstore_put(struct logstore *s, const void *data, size_t len, struct follow_source *ret, struct im_error *err)
{
	struct stored *one = malloc(sizeof *one);
	if (!one)
		return im_fail(err, IM_ENOMEM, "out of memory");
	*one = (struct stored){ .fd = s->fd, .offset = atomic_fetch_add(&s->end, len), .next = atomic_load(&s->stored) };
	while (!atomic_compare_exchange_weak(&s->stored, &one->next, one))
		;
	*ret = (struct follow_source){ .read = read_stored, .context = one, .len = len };
	return im_pwrite_full(s->fd, data, len, one->offset, err, "the log in the restore's stage");
}

void logstore_close(struct logstore *s)
{
	if (!s)
		return;
	for (struct stored *one = atomic_load(&s->stored), *next; one; one = next) {
		next = one->next;
		free(one);
	}
	close(s->fd);
	free(s);
}
