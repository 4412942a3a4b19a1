/* SPDX-License-Identifier: Apache-2.0 */
#include "base/arriving.h"

#include "base/cleanup.h"
#include "base/file.h"

#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

char *im_stage_name(char *ret, const char *name, const char *suffix)
{
	size_t room = NAME_MAX - strlen(suffix) - 1;
	if (!name)
		return strcpy(ret, suffix);
	if (strlen(name) <= room) {
		sprintf(ret, ".%s%s", name, suffix);
		return ret;
	}
	uint32_t h = 2166136261u; /* FNV-1a: keeps shortened names apart */
	for (const char *p = name; *p; p++)
		h = (h ^ (uint8_t)*p) * 16777619u;
	sprintf(ret, ".%.*s-%08x%s", (int)room - 9, name, h, suffix);
	return ret;
}

char *im_arriving_find(const char *path)
{
	auto_free char *copy = realpath(path, NULL); /* the service's own path may lead through links */
	if (!copy)
		copy = strdup(path);
	for (char *slash; copy && (slash = strrchr(copy, '/')); *slash = 0) {
		char stage[NAME_MAX + 1];
		if (!slash[1])
			continue;
		*slash = 0;
		auto_free char *found = im_format("%s/%s", copy, im_stage_name(stage, slash + 1, IM_ARRIVING_SUFFIX));
		*slash = '/';
		auto_free char *record = found ? im_path_join(found, IM_ARRIVING_RECORD) : NULL;
		auto_free char *done = found ? im_path_join(found, IM_ARRIVING_DONE) : NULL;
		if (record && done && access(record, F_OK) == 0 && access(done, F_OK))
			return TAKE_PTR(found);
	}
	return NULL;
}
