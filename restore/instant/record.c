/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The record's name tells everybody whether the folder is still arriving; what it says is for us.
 */
#include "restore/instant/record.h"

#include "base/arriving.h"
#include "base/cleanup.h"
#include "base/file.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#define RECORD_MAX_BYTES (16u << 20)

static const char *const phases[] = { "building", "serving", "switched" };

int record_write(const char *stage, enum record_phase phase, const json_t *details, struct im_error *err)
{
	auto_free char *path = im_path_join(stage, IM_ARRIVING_RECORD), *after = im_path_join(stage, IM_ARRIVING_DONE);
	json_t *all = json_copy((json_t *)details);
	json_object_set_new(all, "format", json_integer(1));
	json_object_set_new(all, "phase", json_string(phases[phase]));
	auto_free char *text = json_dumps(all, JSON_INDENT(1) | JSON_SORT_KEYS);
	json_decref(all);
	if (!path || !after || !text)
		return im_fail(err, IM_ENOMEM, "out of memory");
	int rc = im_file_write(phase == RECORD_SWITCHED ? after : path, text, strlen(text), 0600, IM_FILE_REPLACE, err);
	if (rc == 0 && phase == RECORD_SWITCHED && unlink(path) && errno != ENOENT)
		rc = im_fail_errno(err, IM_EIO, errno, "cannot remove %s", path);
	return rc || phase != RECORD_SWITCHED ? rc : im_fsync_dir(stage, err);
}

void record_remove(const char *stage)
{
	auto_free char *path = im_path_join(stage, IM_ARRIVING_RECORD);
	if (path)
		unlink(path);
}

static int read_one(const char *stage, const char *name, enum record_phase *ret_phase, json_t **ret_details, struct im_error *err)
{
	auto_free char *path = im_path_join(stage, name);
	auto_buf struct im_buf text = { 0 };
	if (!path)
		return im_fail(err, IM_ENOMEM, "out of memory");
	int rc = im_file_read(path, RECORD_MAX_BYTES, &text, err);
	if (rc)
		return rc;
	json_t *all = json_loadb((const char *)text.data, text.len, 0, NULL);
	const char *phase = json_string_value(json_object_get(all, "phase"));
	for (size_t i = 0; phase && i < sizeof phases / sizeof phases[0]; i++)
		if (strcmp(phase, phases[i]) == 0 && json_integer_value(json_object_get(all, "format")) == 1) {
			*ret_phase = (enum record_phase)i;
			*ret_details = all;
			return 0;
		}
	json_decref(all);
	return im_fail(err, IM_ECORRUPT, "%s makes no sense", path);
}

int record_read(const char *stage, enum record_phase *ret_phase, json_t **ret_details, struct im_error *err)
{
	struct im_error why = { 0 };
	int rc = read_one(stage, IM_ARRIVING_DONE, ret_phase, ret_details, &why); /* first: the other may come back after a crash */
	if (rc == IM_ENOTFOUND)
		return read_one(stage, IM_ARRIVING_RECORD, ret_phase, ret_details, err);
	return rc ? im_fail(err, rc, "%s", why.text) : 0;
}
