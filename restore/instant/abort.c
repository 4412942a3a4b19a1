/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The order matters: first nobody may use the folder any more, then its processes end, and with them
 * the event group. Ended earlier, a server could read zeros.
 */
#include "restore/instant/abort.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/file.h"
#include "restore/instant/find.h"
#include "restore/instant/keeper.h"
#include "restore/instant/fuse.h"

#include <unistd.h>

struct aborting {
	struct found_list list;
	void (*say)(void *context, const char *text);
	void *context;
};

static void say(const struct aborting *a, const char *format, const char *what)
{
	auto_free char *text = im_format(format, what);
	if (text)
		a->say(a->context, text);
}

static int unmount_all(const struct aborting *a, struct im_error *err)
{
	int rc = 0;
	for (size_t i = 0; i < a->list.count && rc == 0; i++) {
		struct arrangement x;
		if (a->list.items[i].phase == RECORD_SWITCHED)
			continue;
		rc = found_arrangement(&a->list.items[i], &x, err);
		if (rc)
			break;
		rc = fuse_view_unmount(x.cover.target, false, err);
		if (rc == 0)
			rc = cover_unmount(&x.cover, err);
		arrange_clear(&x);
	}
	return rc;
}

/* Until the stage is nobody's. */
static int end_processes(const struct found *f, struct im_error *err)
{
	struct table t;
	struct im_error ignored = { 0 };
	for (int tries = 0; found_is_at_work(f); tries++) {
		if (tries == 500)
			return im_fail(err, IM_ELOCKED, "another imvault works on %s", f->stage);
		if (found_table(f, true, &t, &ignored) == 0) {
			keeper_end(&t);
			table_close(&t);
		}
		im_sleep_ms(20);
	}
	return 0;
}

static int abort_one(const struct aborting *a, const struct found *f, struct im_error *err)
{
	struct arrangement x;
	bool gone = true;
	int rc = found_arrangement(f, &x, err);
	if (rc)
		return rc;
	if (f->phase == RECORD_SWITCHED) {
		rc = cover_end_alias(&x.cover, &gone, err);
		say(a, gone ? "%s was complete already" : "%s is complete; its second name goes when the service has ended", x.cover.target);
	} else {
		rc = end_processes(f, err);
		if (rc == 0)
			rc = arrange_undo(&x, err);
		if (rc == 0)
			say(a, "%s is as it was before the restore", x.cover.target);
	}
	if (rc == 0 && gone)
		rc = arrange_remove_stage(&x, err);
	arrange_clear(&x);
	return rc;
}

int instant_abort(const char *const *paths, void (*fn)(void *context, const char *text), void *context, struct im_error *err)
{
	struct aborting a = { .say = fn, .context = context };
	int rc = paths ? 0 : found_add_mounted(&a.list, err);
	for (size_t i = 0; paths && paths[i] && rc == 0; i++)
		rc = found_add_path(&a.list, paths[i], err);
	if (rc == 0)
		rc = found_complete(&a.list, err);
	if (rc == 0 && !a.list.count)
		rc = im_fail(err, IM_ENOTFOUND, "no instant restore is under way%s", paths ? " there" : " here; name its folder if the machine was restarted since");
	if (rc == 0 && !paths)
		rc = found_check_one(&a.list, err);
	if (rc == 0)
		rc = unmount_all(&a, err);
	for (size_t i = 0; i < a.list.count && rc == 0; i++)
		rc = abort_one(&a, &a.list.items[i], err);
	found_clear(&a.list);
	return rc;
}

static void say_nothing(void *context, const char *text)
{
	(void)context, (void)text;
}

static int make_way(const struct found *f, struct im_error *err)
{
	const char *target = json_string_value(json_object_get(f->details, "target"));
	const struct aborting a = { .say = say_nothing };
	if (f->phase == RECORD_SERVING || found_is_at_work(f))
		return im_fail(err, IM_ELOCKED, "an instant restore of %s is not complete: imvault restore --resume goes on with it, imvault restore --abort gives it up",
		    target ? target : f->stage);
	int rc = abort_one(&a, f, err);
	if (rc == 0 && access(f->stage, F_OK) == 0)
		return im_fail(err, IM_ELOCKED, "%s was restored while its service ran, and that service still uses it: stop it first", target ? target : f->stage);
	return rc;
}

int instant_make_way(const char *path, struct im_error *err)
{
	struct found_list list = { 0 };
	int rc = found_add_path(&list, path, err);
	for (size_t i = 0; i < list.count && rc == 0; i++)
		rc = make_way(&list.items[i], err);
	found_clear(&list);
	return rc;
}

void instant_sweep(void)
{
	struct found_list list = { 0 };
	const struct aborting a = { .say = say_nothing };
	struct im_error ignored = { 0 };
	found_add_mounted(&list, &ignored);
	for (size_t i = 0; i < list.count; i++)
		if (list.items[i].phase == RECORD_SWITCHED && !found_is_at_work(&list.items[i]))
			abort_one(&a, &list.items[i], &ignored);
	found_clear(&list);
}
