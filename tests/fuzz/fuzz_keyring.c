/* SPDX-License-Identifier: Apache-2.0 */
/* The keyring: the input is the JSON of a second generation that the restore key signed. */
#include "fuzz.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fixture *f = fuzz_fixture();
	const struct key_file *own = keyring_own(f->restore->keyring);
	auto_buf struct im_buf object = { 0 };
	struct keyring *k = NULL;
	char path[160];
	im_buf_put(&object, "IMVKEYS1", 8);
	im_buf_put_u32(&object, (uint32_t)size);
	im_buf_put(&object, data, size);
	im_buf_put(&object, own->id, 8);
	uint8_t *signature = im_buf_grow(&object, 64);
	crypto_sign(signature, own->sign_seed, "imvault keyring v1", object.data, object.len - 64);
	if (storage_put_object(f->restore->storage, "keys/00000002", object.data, object.len, NULL) == 0) {
		if (keyring_open(f->restore->storage, f->restore->id, f->restore->authority, own, 0, &k, NULL) == 0)
			keyring_free(k);
		snprintf(path, sizeof path, "%s/keys/00000002", f->vault_dir);
		unlink(path);
	}
	return 0;
}
