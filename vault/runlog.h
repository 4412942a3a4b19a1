/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Run records: when `verify` or `report` last ran for a node, on whichever machine, and what it found
 * (FORMAT §11). One small signed object each, never overwritten, so that any machine that reaches the
 * vault sees what did not run. No restore needs them.
 */
#ifndef IM_VAULT_RUNLOG_H
#define IM_VAULT_RUNLOG_H

#include "vault/vault.h"

#include <jansson.h>

#define RUNLOG_TEXT_BYTES 65

struct runlog_run {
	int64_t time_ms, duration_ms; /* time: when it began */
	int exit_code;
	int read_percent;             /* of the vault's bytes; -1: not a command that reads them */
	uint64_t damaged;             /* objects that harm the node, or of which nobody knows whom they harm */
	int64_t known_damage_ms;      /* damage found before and not disproved by then; 0: none. runlog_write finds it out */
	bool known_by_restore_key;
	char host[RUNLOG_TEXT_BYTES], version[RUNLOG_TEXT_BYTES]; /* printable */
	bool by_restore_key;          /* its signer is one; runlog_write finds it out */
};

struct runlog {
	bool known;
	struct runlog_run last;       /* the newest that ran to its end (0 or 6); if known */
	int64_t clean_ms;             /* the newest that read everything and found nothing; 0: none */
	int64_t damage_ms;            /* when damage was last found that no such run disproved since; 0: none is known */
	bool damage_by_restore_key;   /* then only a run with a restore key disproves it: node keys do not see all of it */
	size_t finding_count;         /* objects that cannot be believed: forged, renamed, of the future */
	char finding[IM_ERROR_TEXT_BYTES]; /* one of them, a sentence */
};

/* May the vault's key sign run records of this node? A restore key always; a node key where it may write. */
bool runlog_may_write(const struct vault *v, const char *node);
/* The newest records of the command ("verify", "report"). Those of the future (a clock that is ahead), forged and foreign ones
 * are findings and count for nothing. No record: an empty ret, and 0. */
int runlog_read(const struct vault *v, const char *node, const char *command, int64_t now_ms, struct runlog *ret, struct im_error *err);
/* Writes one. IM_EKEY if the key may not. ret_object: malloc'ed, may be NULL. */
int runlog_write(const struct vault *v, const char *node, const char *command, const struct runlog_run *run, char **ret_object, struct im_error *err);
/* For verify: is this object (of any node and command) what its name says, signed by a key that may sign it or once might?
 * IM_ECORRUPT, with a sentence, if not. */
int runlog_check(const struct vault *v, const char *object, int64_t now_ms, struct im_error *err);

#endif
