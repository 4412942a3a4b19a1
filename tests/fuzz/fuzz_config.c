/* SPDX-License-Identifier: Apache-2.0 */
/* The configuration, as a file or out of a snapshot. */
#include "fuzz.h"

#include "base/config.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct im_config *c = NULL;
	char *text = malloc(size + 1);
	if (!text)
		return 0;
	memcpy(text, data, size);
	text[size] = '\0';
	if (im_config_parse(text, "fuzz", &c, NULL) == 0)
		im_config_free(c);
	free(text);
	return 0;
}
