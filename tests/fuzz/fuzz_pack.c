/* SPDX-License-Identifier: Apache-2.0 */
/* Pack header, footer and trailer; the trailer's listing is the input, sealed as the node would. */
#include "fuzz.h"

#include "vault/record.h"

#include <stdlib.h>
#include <string.h>

static void fuzz_trailer(const uint8_t *data, size_t size)
{
	const struct keyring *k = fuzz_fixture()->node->keyring;
	struct pack_header h = { .generation = 1 };
	uint8_t key[32], aad[36] = "IMVT";
	auto_buf struct im_buf packed = { 0 }, trailer = { 0 };
	struct pack_entry *entries = NULL;
	if (size < 2 || keyring_meta_key(k, 1, "imvault trailer v1", key, NULL) || record_compress(data + 2, size - 2, &packed, NULL))
		return;
	memcpy(aad + 4, keyring_vault_id(k), 16);
	im_buf_put(&trailer, (uint8_t[24]){ 0 }, 24);
	crypto_aead_seal(im_buf_grow(&trailer, packed.len + 16), key, trailer.data, aad, sizeof aad, packed.data, packed.len);
	if (pack_trailer_decode(k, &h, trailer.data, trailer.len, data[0] | (uint32_t)data[1] << 8, &entries, NULL) == 0)
		free(entries);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct pack_header h;
	uint64_t offset;
	uint32_t len, count;
	uint8_t vault_id[16] = { 0 };
	if (size >= 32)
		memcpy(vault_id, data + 16, 16); /* get past the comparison */
	if (pack_header_decode(vault_id, data, size, &h, NULL) == 0 && h.recipients)
		IM_CHECK(h.header_bytes <= size);
	if (size >= PACK_FOOTER_BYTES && pack_footer_decode(data + size - PACK_FOOTER_BYTES, size, &offset, &len, &count, NULL) == 0)
		IM_CHECK(offset + len + PACK_FOOTER_BYTES == size);
	fuzz_trailer(data, size);
	return 0;
}
