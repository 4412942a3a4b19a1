/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writes a recovery record of any content, for tests of what reads them: failed ones, old ones, ones
 * that were slow.
 *
 *   imvault-make-drill VAULT RESTORE-KEY NODE META-JSON      the key is not protected
 */
#include "vault/drills.h"

#include <stdio.h>
#include <stdlib.h>

static int run(char **argv, struct im_error *err)
{
	struct vault *v = NULL;
	char *object = NULL;
	json_t *meta = json_loads(argv[4], JSON_REJECT_DUPLICATES, NULL), *private_part = json_object();
	int rc = meta ? vault_open(argv[1], argv[2], NULL, NULL, 0, &v, err) : im_fail(err, IM_EUSAGE, "META-JSON is none");
	if (rc == 0)
		rc = drills_append(v, argv[3], meta, private_part, &object, err);
	if (rc == 0)
		puts(object);
	free(object);
	json_decref(meta);
	json_decref(private_part);
	vault_close(v);
	return rc;
}

int main(int argc, char **argv)
{
	struct im_error err = { 0 };
	if (argc != 5 || run(argv, &err))
		fprintf(stderr, "imvault-make-drill: %s\n", argc != 5 ? "VAULT RESTORE-KEY NODE META-JSON" : err.text);
	return argc != 5 ? 2 : im_exit_status(err.code, 0);
}
