/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The follower's end of the keeper: finding it, starting it, asking it. Socket names are reached
 * through a descriptor of their folder, since paths may be longer than a socket address.
 */
#include "stores/sqlite/keeper.h"

#include "base/cleanup.h"
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ANSWER_SECONDS = 15, /* beyond its own timeout for locks */
	CHECKPOINT_SECONDS = 120 }; /* of all that wal_limit allows, on a slow disk */

struct keeper {
	int socket;
};

static int keeper_fail(struct im_error *err)
{
	return im_fail(err, IM_EGAP, "the process that held the source is gone (it was killed, or the WAL grew beyond wal_limit)");
}

static void address_of(int folder_fd, struct sockaddr_un *ret)
{
	*ret = (struct sockaddr_un){ .sun_family = AF_UNIX };
	snprintf(ret->sun_path, sizeof ret->sun_path, "/proc/self/fd/%d/" KEEPER_SOCKET, folder_fd);
}

/* -1 if nobody listens. */
static int connect_to(int folder_fd)
{
	struct sockaddr_un address;
	address_of(folder_fd, &address);
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address)) {
		close(fd);
		fd = -1;
	}
	return fd;
}

static int listen_at(int folder_fd, const char *folder, int *ret, struct im_error *err)
{
	struct sockaddr_un address;
	address_of(folder_fd, &address);
	unlinkat(folder_fd, KEEPER_SOCKET, 0); /* nobody listens there any more */
	auto_close int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) || listen(fd, 4))
		return im_fail_errno(err, IM_EFAIL, errno, "cannot make a socket in %s", folder);
	*ret = TAKE_FD(fd);
	return 0;
}

/* A grandchild, so that it is nobody's zombie and outlives us. */
static int start(const struct keeper_options *o, int folder_fd, struct im_error *err)
{
	auto_close int listener = -1;
	int rc = listen_at(folder_fd, o->folder, &listener, err);
	if (rc)
		return rc;
	pid_t child = fork();
	if (child < 0)
		return im_fail_errno(err, IM_EFAIL, errno, "cannot start a process");
	if (child == 0) {
		pid_t keeper = fork();
		if (keeper == 0)
			keeper_process_run(o, listener);
		_exit(keeper < 0);
	}
	int status = 0;
	while (waitpid(child, &status, 0) < 0 && errno == EINTR)
		;
	return status == 0 ? 0 : im_fail(err, IM_EFAIL, "cannot start the process that holds the source");
}

static int receive(struct keeper *k, struct keeper_reply *ret, int *ret_journal, struct im_error *err)
{
	union {
		struct cmsghdr head;
		char room[CMSG_SPACE(sizeof(int))];
	} control = { 0 };
	struct iovec iov = { ret, sizeof *ret };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.room, .msg_controllen = sizeof control.room };
	ssize_t n;
	while ((n = recvmsg(k->socket, &m, MSG_CMSG_CLOEXEC)) < 0 && errno == EINTR)
		;
	if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
		return im_fail(err, IM_EGAP, "the process that holds the source does not answer");
	int journal = -1;
	struct cmsghdr *c = n > 0 ? CMSG_FIRSTHDR(&m) : NULL;
	if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS)
		memcpy(&journal, CMSG_DATA(c), sizeof journal);
	if (ret_journal)
		*ret_journal = journal;
	else if (journal >= 0)
		close(journal);
	if (n != (ssize_t)sizeof *ret || ret->version != KEEPER_VERSION || ret->pin_count > 2)
		return keeper_fail(err);
	ret->text[sizeof ret->text - 1] = 0;
	return ret->code ? im_fail(err, (enum im_code)ret->code, "%s", ret->text) : 0;
}

static int ask(struct keeper *k, const struct keeper_request *q, struct keeper_reply *ret, int *ret_journal, struct im_error *err)
{
	const struct timeval patience = { .tv_sec = q->op == KEEPER_CHECKPOINT ? CHECKPOINT_SECONDS : ANSWER_SECONDS };
	setsockopt(k->socket, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
	if (send(k->socket, q, sizeof *q, MSG_NOSIGNAL) != (ssize_t)sizeof *q)
		return keeper_fail(err);
	return receive(k, ret, ret_journal, err);
}

static int ask_simply(struct keeper *k, enum keeper_op op, struct keeper_reply *ret, struct im_error *err)
{
	struct keeper_request q = { .version = KEEPER_VERSION, .op = op };
	return ask(k, &q, ret, NULL, err);
}

static bool is_of(const struct keeper_reply *r, const char *database)
{
	struct stat st;
	return stat(database, &st) == 0 && (uint64_t)st.st_dev == r->device && (uint64_t)st.st_ino == r->inode;
}

static int hello(struct keeper *k, const struct keeper_options *o, struct keeper_reply *ret, int *ret_journal, struct im_error *err)
{
	struct keeper_request q = { .version = KEEPER_VERSION, .op = KEEPER_HELLO, .hold_ms = o->hold_ms,
		.wal_limit_bytes = o->wal_limit_bytes };
	*ret_journal = -1;
	int rc = ask(k, &q, ret, ret_journal, err);
	if (rc == 0 && *ret_journal < 0)
		rc = im_fail(err, IM_EFAIL, "the process that holds the source has no journal");
	return rc;
}

/* A keeper of an older program, or of a database that was replaced since, is sent away. */
static bool greet_living(struct keeper *k, int folder_fd, const struct keeper_options *o, struct keeper_reply *ret, int *ret_journal)
{
	k->socket = connect_to(folder_fd);
	if (k->socket < 0)
		return false;
	struct im_error ignored = { 0 };
	if (hello(k, o, ret, ret_journal, &ignored) == 0 && is_of(ret, o->database))
		return true;
	ask_simply(k, KEEPER_QUIT, ret, NULL);
	if (*ret_journal >= 0)
		close(*ret_journal);
	close(k->socket);
	k->socket = -1;
	return false;
}

static int greet_new(struct keeper *k, int folder_fd, const struct keeper_options *o, struct keeper_reply *ret, int *ret_journal, struct im_error *err)
{
	int rc = start(o, folder_fd, err);
	if (rc)
		return rc;
	k->socket = connect_to(folder_fd);
	if (k->socket < 0)
		return im_fail_errno(err, IM_EFAIL, errno, "cannot reach the process that holds the source");
	return hello(k, o, ret, ret_journal, err);
}

int keeper_open(const struct keeper_options *o, struct keeper **ret, struct keeper_pin ret_pins[2], unsigned *ret_count, int *ret_journal, struct im_error *err)
{
	auto_close int folder_fd = open(o->folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
	struct keeper *k = folder_fd < 0 ? NULL : calloc(1, sizeof *k);
	struct keeper_reply reply = { 0 };
	if (!k)
		return im_fail_errno(err, IM_EFAIL, errno, "cannot open %s", o->folder);
	k->socket = -1;
	*ret_journal = -1;
	int rc = 0;
	if (!greet_living(k, folder_fd, o, &reply, ret_journal))
		rc = greet_new(k, folder_fd, o, &reply, ret_journal, err);
	if (rc) {
		if (*ret_journal >= 0)
			close(*ret_journal);
		keeper_close(k, false);
		return rc;
	}
	*ret_count = reply.pin_count;
	memcpy(ret_pins, reply.pins, 2 * sizeof *ret_pins);
	*ret = k;
	return 0;
}

int keeper_take(struct keeper *k, struct keeper_pin *ret, struct im_error *err)
{
	struct keeper_reply reply;
	int rc = ask_simply(k, KEEPER_TAKE, &reply, err);
	if (rc == 0 && reply.pin_count == 0)
		return keeper_fail(err);
	if (rc == 0)
		*ret = reply.pins[reply.pin_count - 1];
	return rc;
}

int keeper_release(struct keeper *k, bool newer, struct im_error *err)
{
	struct keeper_reply reply;
	return ask_simply(k, newer ? KEEPER_RELEASE_NEW : KEEPER_RELEASE_OLD, &reply, err);
}

bool keeper_is_alive(const struct keeper *k)
{
	struct pollfd p = { .fd = k->socket, .events = POLLIN };
	return poll(&p, 1, 0) == 0; /* it never speaks first: anything to read is the end */
}

int keeper_checkpoint(struct keeper *k, struct im_error *err)
{
	struct keeper_reply reply;
	return ask_simply(k, KEEPER_CHECKPOINT, &reply, err);
}

void keeper_close(struct keeper *k, bool hold)
{
	struct keeper_request q = { .version = KEEPER_VERSION, .op = KEEPER_QUIT };
	if (!k)
		return;
	if (k->socket >= 0 && !hold)
		send(k->socket, &q, sizeof q, MSG_NOSIGNAL);
	if (k->socket >= 0)
		close(k->socket);
	free(k);
}
