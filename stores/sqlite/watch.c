/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Waiting. Under load the WAL is written thousands of times a second: one look each 20 ms is enough
 * for everybody, so that is the shortest wait.
 */
#include "stores/sqlite/watch.h"

#include "base/clock.h"

#include <errno.h>
#include <poll.h>
#include <sys/inotify.h>
#include <unistd.h>

enum { REST_MS = 20, POLL_MS = 250, LOOKS = 3 };
static const int look_ms[LOOKS] = { 500, 100, REST_MS }; /* by looks left, last first */

#define NAME_EVENTS (IN_ATTRIB | IN_MOVE_SELF | IN_DELETE_SELF) /* IN_ATTRIB: unlinked while open */

void watch_open(struct watch *w, const char *db_path, const char *wal_path)
{
	*w = (struct watch){ .inotify = inotify_init1(IN_CLOEXEC | IN_NONBLOCK) };
	if (w->inotify >= 0 && (inotify_add_watch(w->inotify, wal_path, IN_MODIFY | NAME_EVENTS) < 0 ||
	    inotify_add_watch(w->inotify, db_path, NAME_EVENTS) < 0))
		watch_close(w); /* no watches left on this machine */
}

void watch_close(struct watch *w)
{
	if (w->inotify >= 0)
		close(w->inotify);
	w->inotify = -1;
}

static void drain(const struct watch *w)
{
	char events[4096] __attribute__((aligned(__alignof__(struct inotify_event))));
	while (read(w->inotify, events, sizeof events) > 0)
		;
}

static int64_t shorter(int64_t a, int64_t b)
{
	return b < a ? b : a;
}

/* Sleeps, woken only by wake_fd. */
static bool rest(int wake_fd, int64_t ms)
{
	struct pollfd p = { wake_fd, POLLIN, 0 };
	return ms > 0 && poll(&p, wake_fd >= 0, (int)ms) > 0;
}

int watch_wait(struct watch *w, int wake_fd, int64_t timeout_ms, bool busy, struct im_error *err)
{
	int64_t since_ms = im_monotonic_ms() - w->last_return_ms;
	if (timeout_ms < 0 || timeout_ms > INT32_MAX)
		timeout_ms = INT32_MAX;
	int64_t rest_ms = since_ms < REST_MS ? REST_MS - since_ms : 0;
	bool woken = rest(wake_fd, timeout_ms < rest_ms ? timeout_ms : rest_ms);
	if (!woken && !busy && timeout_ms > rest_ms) {
		struct pollfd polls[2] = { { wake_fd, POLLIN, 0 }, { w->inotify, POLLIN, 0 } };
		int64_t left = timeout_ms - rest_ms;
		if (w->looks_left)
			left = shorter(left, look_ms[w->looks_left - 1]);
		if (w->inotify < 0)
			left = shorter(left, POLL_MS);
		int n = poll(polls, 2, (int)left);
		if (n < 0 && errno != EINTR)
			return im_fail_errno(err, IM_EFAIL, errno, "cannot wait for writes");
		if (w->looks_left)
			w->looks_left--;
	}
	if (w->inotify >= 0) {
		struct pollfd p = { w->inotify, POLLIN, 0 };
		if (poll(&p, 1, 0) > 0) {
			drain(w);
			w->looks_left = LOOKS;
		}
	}
	w->last_return_ms = im_monotonic_ms();
	return 0;
}
