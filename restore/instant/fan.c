/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernel interface. Headers older than the kernel lack some of the constants.
 */
#include "restore/instant/fan.h"

#include "base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/fanotify.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef FAN_PRE_ACCESS
#define FAN_PRE_ACCESS 0x00100000
#endif
#define INFO_TYPE_RANGE 6
#define DENY_WITH(e) (FAN_DENY | ((uint32_t)(e) & 0xff) << 24) /* FAN_DENY_ERRNO */

struct info_range {
	struct fanotify_event_info_header header;
	uint32_t pad;
	uint64_t offset, count;
};

_Static_assert(sizeof(struct fanotify_event_metadata) + sizeof(struct info_range) <= FAN_SLOT_BYTES, "an event fits its slot");

static uint64_t mask_of(enum fan_kind kind)
{
	return kind == FAN_BLOCKS ? FAN_PRE_ACCESS : FAN_OPEN_PERM;
}

int fan_open(enum fan_kind kind, int *ret_group, struct im_error *err)
{
	unsigned class = kind == FAN_BLOCKS ? FAN_CLASS_PRE_CONTENT : FAN_CLASS_CONTENT;
	/* read-only event descriptors: others cannot be made for an access through a read-only mount */
	int fd = fanotify_init(class | FAN_CLOEXEC | FAN_UNLIMITED_MARKS | FAN_UNLIMITED_QUEUE, O_RDONLY | O_LARGEFILE | O_CLOEXEC);
	if (fd >= 0) {
		*ret_group = fd;
		return 0;
	}
	if (errno == EPERM)
		return im_fail(err, IM_EUSAGE, "watching files needs root (CAP_SYS_ADMIN) outside of any container's user namespace");
	return im_fail_errno(err, IM_EUSAGE, errno, "this kernel cannot watch files (fanotify)");
}

static int change_mark(int group, enum fan_kind kind, int fd, unsigned flag, struct im_error *err)
{
	char path[40];
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	if (fanotify_mark(group, flag, mask_of(kind), AT_FDCWD, path) == 0 || (flag == FAN_MARK_REMOVE && errno == ENOENT))
		return 0;
	if (errno == EINVAL || errno == EOPNOTSUPP)
		return im_fail_errno(err, IM_EUSAGE, errno, kind == FAN_BLOCKS ?
		    "this kernel or file system cannot watch parts of files (that needs Linux 6.14 and ext4, XFS or btrfs)" :
		    "this kernel or file system cannot watch the opening of files");
	return im_fail_errno(err, IM_EIO, errno, "cannot %s a file", flag == FAN_MARK_ADD ? "watch" : "stop watching");
}

int fan_mark(int group, enum fan_kind kind, int fd, struct im_error *err)
{
	return change_mark(group, kind, fd, FAN_MARK_ADD, err);
}

int fan_unmark(int group, enum fan_kind kind, int fd, struct im_error *err)
{
	return change_mark(group, kind, fd, FAN_MARK_REMOVE, err);
}

bool fan_decode(const void *slot, struct fan_event *ret)
{
	struct fanotify_event_metadata m;
	memcpy(&m, slot, sizeof m);
	if (m.event_len < sizeof m || m.event_len > FAN_SLOT_BYTES || m.fd < 0)
		return false;
	*ret = (struct fan_event){ .fd = m.fd, .pid = m.pid };
	for (size_t at = m.metadata_len; at + sizeof(struct fanotify_event_info_header) <= m.event_len;) {
		struct info_range r;
		memcpy(&r.header, (const uint8_t *)slot + at, sizeof r.header);
		if (r.header.len < sizeof r.header || at + r.header.len > m.event_len)
			break;
		if (r.header.info_type == INFO_TYPE_RANGE && r.header.len >= sizeof r) {
			memcpy(&r, (const uint8_t *)slot + at, sizeof r);
			ret->offset = r.offset;
			ret->count = r.count;
		}
		at += r.header.len;
	}
	return true;
}

/* Room for one event (48 bytes with its range, 24 without), but not for two: a second one in the same read would never be answered. */
static size_t room_for_one(enum fan_kind kind)
{
	size_t one = sizeof(struct fanotify_event_metadata) + (kind == FAN_BLOCKS ? sizeof(struct info_range) : 0);
	return one + one / 2;
}

int fan_read(int group, enum fan_kind kind, void *slot, struct fan_event *ret, struct im_error *err)
{
	ssize_t n = read(group, slot, room_for_one(kind));
	if (n < 0 && (errno == EINTR || errno == EAGAIN || errno == EMFILE || errno == ENFILE))
		return 0;
	if (n < 0)
		return im_fail_errno(err, IM_EIO, errno, "cannot read what is being accessed");
	struct fanotify_event_metadata m;
	memcpy(&m, slot, sizeof m);
	if ((size_t)n < sizeof m || m.event_len != (uint32_t)n)
		return im_fail(err, IM_EIO, "the kernel told of an access in %zd bytes, not in %u", n, m.event_len);
	return fan_decode(slot, ret) ? 1 : 0;
}

int fan_answer(int group, int event_fd, int errno_value)
{
	bool plain = errno_value == 0 || errno_value == EIO || errno_value == ENOSPC || errno_value == EDQUOT;
	struct fanotify_response r = { .fd = event_fd, .response = errno_value ? DENY_WITH(plain ? errno_value : EIO) : FAN_ALLOW };
	if (write(group, &r, sizeof r) == sizeof r || errno == ENOENT)
		return 0;
	/* kernels before 6.14 know no reasons */
	r.response = FAN_DENY;
	return errno_value && (write(group, &r, sizeof r) == sizeof r || errno == ENOENT) ? 0 : IM_EIO;
}

/* --- the probe --- */

#define PROBE_BYTES (256u << 10)
#define PROBE_AT (64u << 10) /* some kernels shift the offset of a map the wrong way */

struct probe {
	char path[64];
	bool mapped, read, opened;
};

static void *touch(void *context)
{
	struct probe *p = context;
	char byte;
	auto_close int fd = open(p->path, O_RDWR | O_CLOEXEC);
	p->opened = fd >= 0;
	p->read = p->opened && pread(fd, &byte, 1, PROBE_AT) == 1;
	void *map = p->opened ? mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, PROBE_AT) : MAP_FAILED;
	p->mapped = map != MAP_FAILED;
	if (p->mapped)
		munmap(map, 4096);
	return NULL;
}

/* Answers what comes for a while; counts the events that cover the place. */
static unsigned answer_probe(int group, enum fan_kind kind, unsigned want, int timeout_ms)
{
	_Alignas(8) uint8_t slot[FAN_SLOT_BYTES];
	unsigned right = 0;
	struct pollfd ready = { .fd = group, .events = POLLIN };
	while (right < want && poll(&ready, 1, timeout_ms) > 0) {
		struct fan_event e;
		struct im_error ignored = { 0 };
		if (fan_read(group, kind, slot, &e, &ignored) != 1)
			continue;
		right += e.offset <= PROBE_AT && (e.count == 0 || e.offset + e.count > PROBE_AT);
		fan_answer(group, e.fd, 0);
		close(e.fd);
	}
	return right;
}

static int probe_file(enum fan_kind kind, int group, int fd, struct im_error *err)
{
	struct probe p = { 0 };
	pthread_t thread;
	char byte;
	unsigned want = kind == FAN_BLOCKS ? 2 : 1; /* read, map; open */
	int rc = fan_mark(group, kind, fd, err);
	if (rc)
		return rc;
	snprintf(p.path, sizeof p.path, "/proc/self/fd/%d", fd);
	if (pread(fd, &byte, 1, 0) != 1 || answer_probe(group, kind, 1, 0))
		return im_fail(err, IM_EUSAGE, "this kernel reports what our own descriptors do");
	if (pthread_create(&thread, NULL, touch, &p))
		return im_fail(err, IM_ENOMEM, "cannot start a thread");
	unsigned right = answer_probe(group, kind, want, 1000);
	/* whatever still waits must not hang */
	fan_unmark(group, kind, fd, err);
	answer_probe(group, kind, UINT32_MAX, 0);
	pthread_join(thread, NULL);
	if (right < want || !p.read || !p.mapped)
		return im_fail(err, IM_EUSAGE, "this kernel does not report all accesses to a file that is watched");
	return 0;
}

int fan_probe(enum fan_kind kind, int folder_fd, struct im_error *err)
{
	auto_close int group = -1;
	int rc = fan_open(kind, &group, err);
	if (rc)
		return rc;
	auto_close int fd = openat(folder_fd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (fd < 0 || ftruncate(fd, PROBE_BYTES))
		return im_fail_errno(err, IM_EUSAGE, errno, "cannot make a file to try it with");
	return probe_file(kind, group, fd, err);
}
