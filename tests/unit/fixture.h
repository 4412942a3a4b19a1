/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What vault tests share: a temporary folder with a fresh vault and both keys, opened as the node
 * and as the restore key, removed at the end.
 */
#ifndef IM_TESTS_FIXTURE_H
#define IM_TESTS_FIXTURE_H

#include "vault/packer.h"
#include "vault/vault.h"

struct fixture {
	char dir[64];               /* removed by fixture_stop */
	char vault_dir[96], state_dir[96], restore_key[96], node_key[96];
	struct vault *node, *restore; /* opened with the node key and with the restore key */
	struct state *state;
};

void fixture_start(struct fixture *f);
void fixture_stop(struct fixture *f);
/* Fails the test with the error's text. */
void assert_ok(int rc, const struct im_error *err);
/* Deterministic bytes that compress a little. */
void fill_bytes(void *p, size_t len, uint64_t seed);
/* rm -rf of a folder this test made. */
void remove_tree(const char *path);

#endif
