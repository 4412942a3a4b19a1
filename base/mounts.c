/* SPDX-License-Identifier: Apache-2.0 */
#include "base/mounts.h"

#include "base/cleanup.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* Names are written with blanks, backslashes and the like as \ooo. */
static void unescape(char *text)
{
	char *to = text;
	for (const char *from = text; *from; to++) {
		unsigned c;
		if (*from == '\\' && strlen(from) >= 4 && sscanf(from + 1, "%3o", &c) == 1) {
			*to = (char)c;
			from += 4;
		} else {
			*to = *from++;
		}
	}
	*to = 0;
}

/* Cuts a line into its words; a '-' stands before the type. */
static bool parse(char *line, struct im_mount *ret)
{
	char *save, *word = strtok_r(line, " \n", &save), *root = NULL, *place = NULL;
	for (unsigned n = 1; word && strcmp(word, "-") != 0; n++) {
		root = n == 4 ? word : root;
		place = n == 5 ? word : place;
		word = strtok_r(NULL, " \n", &save);
	}
	char *type = word ? strtok_r(NULL, " \n", &save) : NULL;
	if (!place || !type)
		return false;
	unescape(root);
	unescape(place);
	*ret = (struct im_mount){ root, place, type };
	return true;
}

int im_mounts_each(pid_t pid, int (*fn)(void *context, const struct im_mount *m), void *context)
{
	char name[40] = "/proc/self/mountinfo";
	auto_free char *line = NULL;
	size_t room = 0;
	int rc = 0;
	if (pid)
		snprintf(name, sizeof name, "/proc/%d/mountinfo", (int)pid);
	FILE *f = fopen(name, "re");
	while (f && rc == 0 && getline(&line, &room, f) > 0) {
		struct im_mount m;
		if (parse(line, &m))
			rc = fn(context, &m);
	}
	if (f)
		fclose(f);
	return rc;
}
