/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The vault fixture. Every assertion failure stops the test executable through cmocka, so there is
 * no error path here.
 */
#include "fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <ftw.h>
#include <sys/stat.h>
#include <unistd.h>

void assert_ok(int rc, const struct im_error *err)
{
	if (rc)
		fail_msg("code %d: %s", rc, err->code ? err->text : "(no text)");
}

void fill_bytes(void *p, size_t len, uint64_t seed)
{
	uint8_t *b = p;
	uint64_t x = seed * UINT64_C(0x9e3779b97f4a7c15) + 1;
	for (size_t i = 0; i < len; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		b[i] = (uint8_t)('a' + (x & 15));
	}
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *walk)
{
	(void)st;
	(void)type;
	(void)walk;
	return remove(path);
}

void remove_tree(const char *path)
{
	nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

void fixture_start(struct fixture *f)
{
	struct im_error err = { 0 };
	memset(f, 0, sizeof *f);
	strcpy(f->dir, "/tmp/imvault-test-XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	snprintf(f->vault_dir, sizeof f->vault_dir, "%s/vault", f->dir);
	snprintf(f->state_dir, sizeof f->state_dir, "%s/state", f->dir);
	snprintf(f->restore_key, sizeof f->restore_key, "%s/restore.key", f->dir);
	snprintf(f->node_key, sizeof f->node_key, "%s/node.key", f->dir);
	assert_ok(vault_init(f->vault_dir, f->restore_key, NULL, f->node_key, NULL, &err), &err);
	assert_ok(vault_open(f->vault_dir, f->node_key, NULL, NULL, 0, &f->node, &err), &err);
	assert_ok(vault_open(f->vault_dir, f->restore_key, NULL, NULL, 0, &f->restore, &err), &err);
	assert_ok(state_open(f->state_dir, f->node->id, "im-01", &f->state, &err), &err);
}

void fixture_stop(struct fixture *f)
{
	state_close(f->state);
	vault_close(f->node);
	vault_close(f->restore);
	remove_tree(f->dir);
}
