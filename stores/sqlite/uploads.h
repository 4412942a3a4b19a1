/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which uploaded files a message archive speaks of: those a server registered, and those that the
 * XML of messages links to.
 */
#ifndef IM_STORES_SQLITE_UPLOADS_H
#define IM_STORES_SQLITE_UPLOADS_H

#include "stores/store.h"

#define UPLOADS_MAX 200000

struct uploads {
	struct store_attachment *items;
	size_t count, cap;
	bool cut; /* there were more than UPLOADS_MAX */
	struct hash64 index;
};

/* Prosody's mod_http_file_share: a slot, and the request it was given for, as XML (may be NULL). */
int uploads_register(struct uploads *u, const char *host, const char *slot, const char *request, int64_t time_ms, struct im_error *err);
/* Notes which of the registered slots the text links to. */
void uploads_refer_to_slots(struct uploads *u, const char *text, int64_t time_ms);
/* Takes all links that look like those of ejabberd's mod_http_upload: …/USER/RANDOM/NAME. */
int uploads_refer_to_paths(struct uploads *u, const char *text, int64_t time_ms, struct im_error *err);
void uploads_clear(struct uploads *u);

#endif
