/* SPDX-License-Identifier: Apache-2.0 */
/* One entry: the input is codec byte and data, sealed with the pack's key. */
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct codec *codec;
	static struct pack_dict *dict;
	struct pack_key key = { .key = { 1 } };
	if (!codec && (codec_new(1, &codec, NULL) || pack_dict_new("a small dictionary of nothing", 29, 0, &dict, NULL)))
		abort();
	if (size < 3)
		return 0;
	size_t plain_len = data[0] | (size_t)data[1] << 8, len = size - 2;
	uint8_t aad[45] = "IMVE", nonce[24] = { 7 };
	aad[4] = ENTRY_EXTENT;
	im_put_le32(aad + 5, 7);
	im_put_le32(aad + 9, (uint32_t)plain_len);
	uint8_t *sealed = malloc(len + 16), *plain = malloc(plain_len ? plain_len : 1);
	if (sealed && plain) {
		crypto_aead_seal(sealed, key.key, nonce, aad, sizeof aad, data + 2, len);
		entry_decode(codec, &key, dict, ENTRY_EXTENT, 7, sealed, len + 16, plain, plain_len, NULL);
	}
	free(sealed);
	free(plain);
	return 0;
}
