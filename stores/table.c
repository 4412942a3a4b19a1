/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kinds of message stores this build knows, one line each; and what their interface owns.
 */
#include "stores/store.h"

#include "stores/files/files_store.h"

#include <stdlib.h>
#include <string.h>

extern const struct store_ops sqlite_store_ops;

static const struct store_ops *const table[] = {
	&sqlite_store_ops,
	&files_store_ops,
	NULL,
};

const struct store_ops *const *store_table(void) { return table; }

const struct store_ops *store_find(const char *type)
{
	for (size_t i = 0; table[i]; i++)
		if (type && !strcmp(table[i]->type, type))
			return table[i];
	return NULL;
}

void follow_batch_clear(struct follow_batch *b)
{
	for (size_t i = 0; i < b->part_count; i++)
		im_buf_free(&b->parts[i].data);
	free(b->parts);
	free(b->points);
	json_decref(b->position);
	*b = (struct follow_batch){ 0 };
}

void store_survey_clear(struct store_survey *s)
{
	for (size_t i = 0; i < s->attachment_count; i++)
		free(s->attachments[i].tail);
	free(s->attachments);
	tally_clear(&s->tally);
	*s = (struct store_survey){ 0 };
}
