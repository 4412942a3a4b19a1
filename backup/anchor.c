/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Asking the follower. It answers from the store's thread, which may be busy with a large change,
 * so the patience is longer than the follower's own with a frozen store.
 */
#include "backup/anchor.h"

#include "backup/wire.h"
#include "base/cleanup.h"

#include <stdlib.h>

#define ANSWER_TIMEOUT_MS 120000

struct anchor {
	struct snapshot_anchor base;
	struct wire wire;
};

static int code_of(const json_t *answer)
{
	json_int_t code = json_integer_value(json_object_get(answer, "code"));
	return code < 0 && code >= IM_EGAP ? (int)code : IM_EFAIL;
}

/* Takes the question over. */
static int ask(struct anchor *a, json_t *question, json_t **ret, struct im_error *err)
{
	json_t *answer = NULL;
	int rc = wire_send(&a->wire, question, err);
	json_decref(question);
	if (rc == 0)
		rc = wire_receive(&a->wire, -1, ANSWER_TIMEOUT_MS, &answer, err);
	if (rc) {
		wire_close(&a->wire); /* a late answer must not be taken for another question's */
		im_error_context(err, "the follower does not answer");
		return rc;
	}
	if (!json_is_true(json_object_get(answer, "ok"))) {
		const char *why = json_string_value(json_object_get(answer, "error"));
		rc = im_fail(err, code_of(answer), "the follower: %.900s", why ? why : "no reason given");
		json_decref(answer);
		return rc;
	}
	*ret = answer;
	return 0;
}

static int freeze(struct snapshot_anchor *anchor, const char *store, struct im_error *err)
{
	json_t *answer = NULL;
	int rc = ask((struct anchor *)anchor, json_pack("{s:s, s:s}", "do", "freeze", "store", store), &answer, err);
	json_decref(answer);
	return rc;
}

static int pinned(struct snapshot_anchor *anchor, const char *store, const json_t *position, json_t **ret_log, struct im_error *err)
{
	json_t *answer = NULL, *question = json_pack("{s:s, s:s}", "do", "pinned", "store", store);
	json_object_set_new(question, "position", position ? json_deep_copy(position) : json_null());
	int rc = ask((struct anchor *)anchor, question, &answer, err);
	json_t *log = json_object_get(answer, "log");
	*ret_log = json_is_object(log) ? json_incref(log) : NULL;
	json_decref(answer);
	return rc;
}

int anchor_image(struct anchor *a, const char *store, const char *checksum_hex, bool *ret_joined, struct im_error *err)
{
	json_t *answer = NULL;
	*ret_joined = false;
	if (!a)
		return 0;
	int rc = ask(a, json_pack("{s:s, s:s, s:s*}", "do", "image", "store", store, "checksum", checksum_hex), &answer, err);
	*ret_joined = json_is_true(json_object_get(answer, "joined"));
	json_decref(answer);
	return rc;
}

struct anchor *anchor_connect(const char *folder, const char *node)
{
	auto_free char *place = wire_folder(folder, node);
	struct anchor *a = calloc(1, sizeof *a);
	if (!place || !a || wire_connect(place, &a->wire, NULL, NULL)) {
		free(a);
		return NULL;
	}
	a->base = (struct snapshot_anchor){ freeze, pinned };
	return a;
}

struct snapshot_anchor *anchor_hooks(struct anchor *a)
{
	return a ? &a->base : NULL;
}

void anchor_close(struct anchor *a)
{
	if (!a)
		return;
	wire_close(&a->wire);
	free(a);
}
