/* SPDX-License-Identifier: Apache-2.0 */
/* Records and snapshots: raw bytes, and the input as the JSON of a well-signed snapshot, read back through the vault. */
#include "fuzz.h"

#include "vault/snapshot.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static void read_back(struct fixture *f, json_t *meta)
{
	uint8_t hash[32];
	struct snapshot *snapshot = NULL;
	struct snapshot_list list = { 0 };
	json_object_set_new(meta, "node", json_string("im-01"));
	json_object_set_new(meta, "seq", json_integer(1));
	if (snapshot_write(f->node->storage, f->node->keyring, meta, meta, hash, NULL))
		return;
	if (snapshot_list(f->node->storage, "im-01", &list, NULL) == 0 && list.count) {
		if (snapshot_read(f->restore->storage, f->restore->keyring, &list.items[0], &snapshot, NULL) == 0) {
			for (uint32_t n = 0; n < 4; n++)
				snapshot_pack(snapshot, n);
			snapshot_manifest(snapshot, "x");
			snapshot_free(snapshot);
		}
		char path[256];
		snprintf(path, sizeof path, "%s/%s", f->vault_dir, list.items[0].object);
		unlink(path);
	}
	snapshot_list_clear(&list);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fixture *f = fuzz_fixture();
	struct record record = { 0 };
	if (record_decode(f->restore->keyring, RECORD_SNAPSHOT, data, size, &record, NULL) == 0)
		record_clear(&record);
	json_t *meta = json_loadb((const char *)data, size, 0, NULL);
	if (json_is_object(meta))
		read_back(f, meta);
	json_decref(meta);
	return 0;
}
