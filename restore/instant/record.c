/* SPDX-License-Identifier: Apache-2.0 */
#include "restore/instant/record.h"

#include "base/cleanup.h"
#include "base/file.h"

#include <string.h>

#define RECORD_MAX_BYTES (16u << 20)

static const char *const phases[] = { "building", "serving", "switched" };

int record_write(const char *stage, enum record_phase phase, const json_t *details, struct im_error *err)
{
	auto_free char *path = im_path_join(stage, RECORD_NAME);
	json_t *all = details ? json_copy((json_t *)details) : json_object();
	json_object_set_new(all, "format", json_integer(1));
	json_object_set_new(all, "phase", json_string(phases[phase]));
	auto_free char *text = json_dumps(all, JSON_INDENT(1) | JSON_SORT_KEYS);
	json_decref(all);
	if (!path || !text)
		return im_fail(err, IM_ENOMEM, "out of memory");
	return im_file_write(path, text, strlen(text), 0600, IM_FILE_REPLACE, err);
}

int record_read(const char *stage, enum record_phase *ret_phase, json_t **ret_details, struct im_error *err)
{
	auto_free char *path = im_path_join(stage, RECORD_NAME);
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
