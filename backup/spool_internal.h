/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the spool share.
 */
#ifndef IM_BACKUP_SPOOL_INTERNAL_H
#define IM_BACKUP_SPOOL_INTERNAL_H

#include "backup/spool.h"

#include <pthread.h>

#define HEAD "head"
#define HEAD_TEMPORARY "head.tmp"
#define HEAD_DAMAGED "head.damaged"
#define QUEUE "spool"
#define TEMPORARY "tmp-"
#define SEQUENCE_CHARS 16

struct spool_items {
	struct spool_item *at;
	size_t count, room;
};

struct spool {
	char *node, *store;
	int folder, queue;      /* descriptors */
	struct spool_items parts; /* written, not yet of the head; the adding thread's */
	json_t *newest;         /* names of the newest segment's parts */
	pthread_mutex_t lock;   /* of what follows */
	uint64_t sequence;      /* of the next object */
	struct spool_items waiting;
	size_t reserved;        /* room in it that somebody counts on */
	size_t first;           /* waiting.at[first] is the front */
	uint64_t bytes;
};

void spool_item_clear(struct spool_item *i);
void spool_items_clear(struct spool_items *l);
int spool_items_reserve(struct spool_items *l, size_t more, struct im_error *err);
char *spool_temporary_name(const char *name);

#endif
