/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading snapshots as they are asked for.
 */
#include "restore/history.h"

#include "base/clock.h"
#include "base/interrupt.h"

#include <stdlib.h>
#include <string.h>

int history_open(struct history *h, struct vault *vault, const char *node, struct im_error *err)
{
	*h = (struct history){ .vault = vault };
	int rc = snapshot_list_of(vault->storage, node, &h->names, err);
	if (rc)
		return rc;
	h->read = calloc(h->names.count, sizeof *h->read);
	h->bad = calloc(h->names.count, sizeof *h->bad);
	h->told = calloc(h->names.count, sizeof *h->told);
	if (h->read && h->bad && h->told)
		return 0;
	history_clear(h);
	return im_fail(err, IM_ENOMEM, "out of memory");
}

void history_clear(struct history *h)
{
	for (size_t i = 0; i < h->names.count; i++) {
		if (h->read)
			snapshot_free(h->read[i]);
		if (h->bad)
			free(h->bad[i]);
	}
	free(h->read);
	free(h->bad);
	free(h->told);
	snapshot_list_clear(&h->names);
	*h = (struct history){ 0 };
}

int history_get(struct history *h, size_t i, struct snapshot **ret, struct im_error *err)
{
	struct im_error why = { 0 };
	*ret = h->read[i];
	if (*ret || h->bad[i])
		return 0;
	int rc = im_interrupt_check(err);
	if (rc)
		return rc;
	rc = snapshot_read(
	    h->vault->storage, h->vault->keyring, &h->names.items[i], &h->read[i], &why);
	if (rc == IM_ECORRUPT || rc == IM_EIO || rc == IM_ENOTFOUND) {
		h->bad[i] = strdup(why.text);
		return h->bad[i] ? 0 : im_fail(err, IM_ENOMEM, "out of memory");
	}
	if (rc)
		return im_fail(err, rc, "%s", why.text);
	if (!h->read[i]->record.private_part)
		return im_fail(err, IM_EKEY,
		    "this key cannot read the snapshot's content; restore needs the restore key");
	*ret = h->read[i];
	return 0;
}

bool history_has_image(const struct snapshot *s, const char *store, int64_t *ret_instant_ms)
{
	json_t *meta = snapshot_store_meta(s, store);
	const char *status = json_string_value(json_object_get(meta, "status"));
	const char *instant = json_string_value(json_object_get(meta, "instant"));
	if (!status || strcmp(status, "ok") != 0 || !snapshot_manifest(s, store))
		return false;
	if (!instant || !im_instant_parse(instant, ret_instant_ms))
		*ret_instant_ms = s->time_ms;
	return true;
}
