/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Serving the control socket. A client keeps its connection for a whole backup; one that misbehaves
 * is dropped; others that come meanwhile wait in the socket's queue.
 */
#include "backup/control.h"

#include "backup/wire.h"
#include "base/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>

#define IDLE_MS (24 * 3600 * 1000) /* between two questions: a backup may read for long */
#define SEND_TIMEOUT_S 30

struct control {
	const struct control_ops *ops;
	int listener, stop[2]; /* stop: a pipe */
	pthread_t thread;
};

static json_t *refusal(int code, const char *text)
{
	json_t *error = json_string(text); /* NULL if it is not UTF-8 */
	return json_pack("{s:b, s:i, s:o}", "ok", 0, "code", code, "error", error ? error : json_string("failed"));
}

static int do_freeze(const struct control *c, const char *store, json_t **ret, struct im_error *err)
{
	int rc = c->ops->freeze(c->ops->context, store, err);
	*ret = rc ? NULL : json_pack("{s:b}", "ok", 1);
	return rc;
}

static int do_pinned(const struct control *c, const char *store, const json_t *question, json_t **ret, struct im_error *err)
{
	const json_t *position = json_object_get(question, "position");
	json_t *log = NULL;
	if (!json_is_object(position) && !json_is_null(position))
		return im_fail(err, IM_EUSAGE, "a position is missing");
	int rc = c->ops->pinned(c->ops->context, store, json_is_null(position) ? NULL : position, &log, err);
	*ret = rc ? NULL : json_pack("{s:b, s:o?}", "ok", 1, "log", log);
	return rc;
}

static int do_image(const struct control *c, const char *store, const json_t *question, json_t **ret, struct im_error *err)
{
	bool joined = false;
	int rc = c->ops->image(c->ops->context, store, json_string_value(json_object_get(question, "checksum")), &joined, err);
	*ret = rc ? NULL : json_pack("{s:b, s:b}", "ok", 1, "joined", joined);
	return rc;
}

static json_t *answer(const struct control *c, const json_t *question)
{
	const char *what = json_string_value(json_object_get(question, "do"));
	const char *store = json_string_value(json_object_get(question, "store"));
	struct im_error why = { 0 };
	json_t *ret = NULL;
	if (!what || !store)
		return refusal(IM_EUSAGE, "what to do, with which store?");
	int rc = strcmp(what, "freeze") == 0 ? do_freeze(c, store, &ret, &why)
	    : strcmp(what, "pinned") == 0    ? do_pinned(c, store, question, &ret, &why)
	    : strcmp(what, "image") == 0     ? do_image(c, store, question, &ret, &why)
	                                     : im_fail(&why, IM_EUSAGE, "this follower does not know that question");
	return rc ? refusal(rc, why.text) : ret;
}

static void serve(const struct control *c, int fd)
{
	const struct timeval limit = { .tv_sec = SEND_TIMEOUT_S };
	struct wire wire = { .fd = fd };
	int rc = 0;
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
	while (rc == 0) {
		json_t *question = NULL;
		rc = wire_receive(&wire, c->stop[0], IDLE_MS, &question, NULL);
		json_t *reply = rc ? NULL : answer(c, question);
		json_decref(question);
		if (rc == 0)
			rc = wire_send(&wire, reply, NULL);
		json_decref(reply);
	}
	wire_close(&wire);
	c->ops->gone(c->ops->context);
}

static void *run(void *context)
{
	struct control *c = context;
	for (;;) {
		struct pollfd fds[2] = { { .fd = c->listener, .events = POLLIN }, { .fd = c->stop[0], .events = POLLIN } };
		if (poll(fds, 2, -1) < 0 && errno != EINTR)
			return NULL;
		if (fds[1].revents)
			return NULL;
		int fd = fds[0].revents ? accept4(c->listener, NULL, NULL, SOCK_CLOEXEC) : -1;
		if (fd >= 0)
			serve(c, fd);
		else if (fds[0].revents && (errno == EMFILE || errno == ENFILE || errno == ENOMEM))
			poll(&fds[1], 1, 1000); /* it will be better in a while */
	}
}

int control_start(const char *folder, const struct control_ops *ops, struct control **ret, struct im_error *err)
{
	struct control *c = calloc(1, sizeof *c);
	if (!c)
		return im_fail(err, IM_ENOMEM, "out of memory");
	*c = (struct control){ .ops = ops, .listener = -1, .stop = { -1, -1 } };
	int rc = wire_listen(folder, &c->listener, err);
	if (rc == 0 && pipe2(c->stop, O_CLOEXEC))
		rc = im_fail_errno(err, IM_EIO, errno, "cannot make a pipe");
	if (rc == 0 && pthread_create(&c->thread, NULL, run, c))
		rc = im_fail(err, IM_EFAIL, "cannot start a thread");
	if (rc == 0) {
		*ret = c;
		return 0;
	}
	for (int i = 0; i < 2; i++)
		if (c->stop[i] >= 0)
			close(c->stop[i]);
	if (c->listener >= 0)
		close(c->listener);
	free(c);
	return rc;
}

void control_stop(struct control *c)
{
	if (!c)
		return;
	close(c->stop[1]);
	pthread_join(c->thread, NULL);
	close(c->stop[0]);
	close(c->listener);
	free(c);
}
