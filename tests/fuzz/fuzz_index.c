/* SPDX-License-Identifier: Apache-2.0 */
/* Index fragments: raw, and with the input as a body that is sealed and signed. */
#include "fuzz.h"

#include "vault/index.h"
#include "vault/record.h"

#include <string.h>

static int accept_entry(void *context, const struct pack_info *pack, const struct pack_entry *entry, struct im_error *err)
{
	(void)context;
	(void)err;
	IM_CHECK((uint64_t)entry->ref.offset + entry->ref.stored <= pack->size_bytes);
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct keyring *k = fuzz_fixture()->node->keyring;
	const struct key_file *own = keyring_own(k);
	auto_buf struct im_buf packed = { 0 }, object = { 0 };
	uint8_t key[32], signer[8];
	index_decode(k, data, size, signer, accept_entry, NULL, NULL);
	if (record_compress(data, size, &packed, NULL) || keyring_meta_key(k, 1, "imvault index v1", key, NULL))
		return 0;
	im_buf_put(&object, "IMVINDX1\1\0\0\0\1\0\0\0", 16);
	im_buf_put(&object, keyring_vault_id(k), 16);
	im_buf_put(&object, own->id, 8);
	im_buf_put(&object, (uint8_t[24]){ 0 }, 24);
	im_buf_put_u32(&object, (uint32_t)packed.len + 16);
	uint8_t *sealed = im_buf_grow(&object, packed.len + 16);
	crypto_aead_seal(sealed, key, object.data + 40, object.data, 64, packed.data, packed.len);
	uint8_t *signature = im_buf_grow(&object, 64);
	crypto_sign(signature, own->sign_seed, "imvault index v1", object.data, object.len - 64);
	index_decode(k, object.data, object.len, signer, accept_entry, NULL, NULL);
	return 0;
}
