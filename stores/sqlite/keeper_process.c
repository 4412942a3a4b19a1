/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The keeper's own process: one client at a time, one request after the other. Whatever goes wrong
 * with a connection it answers; when it cannot go on, it exits, and the follower sees the end of the
 * socket as a gap. Its exit lets every lock go; nothing else needs to be undone.
 */
#include "stores/sqlite/keeper.h"

#include "base/clock.h"
#include "stores/sqlite/pin.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define LOOK_MS 1000 /* how often the WAL's size is looked at */

struct process {
	struct keeper_options options;
	int listener, client, journal;
	struct pin *pins[2];     /* connections; NULL until the first pin */
	struct keeper_pin held[2];
	bool is_held[2];
	unsigned newest;         /* index of the newer one held */
	sqlite3 *checkpointer;
	int64_t alone_since_ms;  /* monotonic; without a client */
};

static bool holds(const struct process *p)
{
	return p->is_held[0] || p->is_held[1];
}

static int connect_pins(struct process *p, struct im_error *err)
{
	for (unsigned i = 0; i < 2; i++) {
		int rc = p->pins[i] ? 0 : pin_connect(p->options.database, p->options.timeout_ms, &p->pins[i], err);
		if (rc)
			return rc;
	}
	return 0;
}

static int take(struct process *p, struct im_error *err)
{
	unsigned i = p->is_held[0] ? 1 : 0;
	if (p->is_held[i])
		return im_fail(err, IM_EUSAGE, "two pins are held already");
	int rc = connect_pins(p, err);
	if (rc == 0)
		rc = pin_begin(p->pins[i], p->options.timeout_ms, err);
	if (rc)
		return rc;
	const struct shm_head *s = &p->pins[i]->shm;
	struct keeper_pin *h = &p->held[i];
	*h = (struct keeper_pin){ .page_size = p->pins[i]->header.page_size, .pages = s->pages, .frame = s->max_frame,
		.frame_checksum = { s->frame_checksum[0], s->frame_checksum[1] },
		.all_backfilled = s->backfilled >= s->max_frame,
		.before_ms = p->pins[i]->instant_ms, .after_ms = im_now_ms() };
	memcpy(h->salt, s->salt, sizeof h->salt);
	p->is_held[i] = true;
	p->newest = i;
	return 0;
}

static int release(struct process *p, bool newer, struct im_error *err)
{
	if (!p->is_held[0] || !p->is_held[1])
		return im_fail(err, IM_EUSAGE, "only one of two pins may be let go");
	unsigned i = newer ? p->newest : 1 - p->newest;
	int rc = pin_end(p->pins[i], err);
	if (rc)
		return rc;
	p->is_held[i] = false;
	p->newest = 1 - i;
	return 0;
}

static int open_checkpointer(struct process *p, struct im_error *err)
{
	if (p->checkpointer)
		return 0;
	/* By the file's own name, as the pins have it. Never writes a page of its own; never the last to close. */
	if (sqlite3_open_v2(p->pins[0]->files.path, &p->checkpointer, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL) != SQLITE_OK)
		return im_fail(err, IM_EFAIL, "cannot open %s to checkpoint: %s", p->pins[0]->files.path,
		    p->checkpointer ? sqlite3_errmsg(p->checkpointer) : "out of memory");
	sqlite3_db_config(p->checkpointer, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
	sqlite3_db_config(p->checkpointer, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
	sqlite3_db_config(p->checkpointer, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
	sqlite3_wal_autocheckpoint(p->checkpointer, 0);
	/* The first read makes SQLite join the WAL. */
	sqlite3_exec(p->checkpointer, "SELECT 1 FROM sqlite_master LIMIT 1", NULL, NULL, NULL);
	return 0;
}

static int checkpoint(struct process *p, struct im_error *err)
{
	if (!holds(p) || p->held[p->newest].all_backfilled)
		return im_fail(err, IM_EUSAGE, "no pin above slot 0 is held");
	int rc = open_checkpointer(p, err);
	if (rc)
		return rc;
	int code = sqlite3_wal_checkpoint_v2(p->checkpointer, "main", SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
	if (code == SQLITE_OK || code == SQLITE_BUSY || code == SQLITE_LOCKED)
		return 0; /* busy: somebody else checkpoints, which is as good */
	return im_fail(err, code == SQLITE_FULL ? IM_ENOSPACE : IM_EFAIL, "cannot checkpoint %s: %s", p->pins[0]->files.path,
	    sqlite3_errmsg(p->checkpointer));
}

static int serve(struct process *p, const struct keeper_request *q, struct im_error *err)
{
	switch (q->op) {
	case KEEPER_HELLO:
		p->options.hold_ms = q->hold_ms;
		p->options.wal_limit_bytes = q->wal_limit_bytes;
		return connect_pins(p, err);
	case KEEPER_TAKE:
		return take(p, err);
	case KEEPER_RELEASE_OLD:
	case KEEPER_RELEASE_NEW:
		return release(p, q->op == KEEPER_RELEASE_NEW, err);
	case KEEPER_CHECKPOINT:
		return checkpoint(p, err);
	default:
		_exit(0);
	}
}

static void describe(const struct process *p, struct keeper_reply *r)
{
	if (p->is_held[0] && p->is_held[1]) {
		r->pins[r->pin_count++] = p->held[1 - p->newest];
		r->pins[r->pin_count++] = p->held[p->newest];
	} else if (holds(p)) {
		r->pins[r->pin_count++] = p->held[p->newest];
	}
	if (p->pins[0]) {
		struct stat st;
		if (fstat(p->pins[0]->files.db, &st) == 0) {
			r->device = (uint64_t)st.st_dev;
			r->inode = (uint64_t)st.st_ino;
		}
	}
}

/* The journal travels with the answer to HELLO. */
static bool send_reply(struct process *p, const struct keeper_reply *r, bool with_journal)
{
	union {
		struct cmsghdr head;
		char room[CMSG_SPACE(sizeof(int))];
	} control = { 0 };
	struct iovec iov = { (void *)r, sizeof *r };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1 };
	if (with_journal) {
		m.msg_control = control.room;
		m.msg_controllen = sizeof control.room;
		struct cmsghdr *c = CMSG_FIRSTHDR(&m);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(c), &p->journal, sizeof(int));
	}
	return sendmsg(p->client, &m, MSG_NOSIGNAL) == (ssize_t)sizeof *r;
}

static void lose_client(struct process *p)
{
	close(p->client);
	p->client = -1;
	p->alone_since_ms = im_monotonic_ms();
	if (p->options.hold_ms <= 0 || !holds(p))
		_exit(0);
}

static void answer(struct process *p)
{
	struct keeper_request q;
	struct keeper_reply r = { .version = KEEPER_VERSION };
	struct im_error why = { 0 };
	ssize_t n = recv(p->client, &q, sizeof q, 0);
	if (n < 0 && errno == EINTR)
		return;
	if (n != (ssize_t)sizeof q) {
		lose_client(p);
		return;
	}
	r.code = q.version == KEEPER_VERSION ? serve(p, &q, &why) : IM_EUSAGE;
	snprintf(r.text, sizeof r.text, "%s", why.text);
	describe(p, &r);
	if (!send_reply(p, &r, q.op == KEEPER_HELLO))
		lose_client(p);
}

/* Held too long or too much: better a gap that is known than a disk that fills up. */
static void look_after_source(struct process *p)
{
	struct shm_head now;
	if (p->client < 0 && im_monotonic_ms() - p->alone_since_ms >= p->options.hold_ms)
		_exit(0);
	if (!p->pins[0] || !pin_files_shm(&p->pins[0]->files, &now))
		return;
	uint64_t used = (uint64_t)now.max_frame * (p->pins[0]->header.page_size + WAL_FRAME_HEADER_BYTES);
	if (p->options.wal_limit_bytes && used > p->options.wal_limit_bytes)
		_exit(0);
}

static void prepare(struct process *p)
{
	struct sigaction ignore = { .sa_handler = SIG_IGN }, standard = { .sa_handler = SIG_DFL };
	setsid();
	prctl(PR_SET_NAME, "imvault-keeper");
	sigaction(SIGINT, &ignore, NULL);
	sigaction(SIGHUP, &ignore, NULL);
	sigaction(SIGPIPE, &ignore, NULL);
	sigaction(SIGTERM, &standard, NULL);
	sigset_t none;
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	int null = open("/dev/null", O_RDWR);
	for (int fd = 0; null >= 0 && fd < 3; fd++)
		dup2(null, fd);
	if (dup2(p->listener, 3) < 0)
		_exit(1);
	p->listener = 3;
	close_range(4, ~0u, 0);
	fcntl(3, F_SETFD, FD_CLOEXEC);
	p->journal = memfd_create("imvault-journal", MFD_CLOEXEC);
	if (p->journal < 0)
		_exit(1);
}

void keeper_process_run(const struct keeper_options *o, int listener)
{
	struct process p = { .options = *o, .listener = listener, .client = -1, .journal = -1 };
	prepare(&p);
	p.alone_since_ms = im_monotonic_ms();
	for (;;) {
		/* A newcomer takes the place of a client that is gone but not noticed: the follower's lock lets only one live. */
		struct pollfd polls[2] = { { p.listener, POLLIN, 0 }, { p.client, POLLIN, 0 } };
		int64_t hold_ms = p.options.hold_ms > 0 && p.options.hold_ms < LOOK_MS ? p.options.hold_ms : LOOK_MS;
		int n = poll(polls, p.client >= 0 ? 2 : 1, p.client >= 0 ? LOOK_MS : (int)hold_ms);
		if (n > 0 && polls[0].revents) {
			int fresh = accept4(p.listener, NULL, NULL, SOCK_CLOEXEC);
			if (fresh >= 0) {
				if (p.client >= 0)
					close(p.client);
				p.client = fresh;
				continue;
			}
		}
		if (n > 0 && p.client >= 0 && polls[1].revents)
			answer(&p);
		look_after_source(&p);
	}
}
