/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The last run of backup, verify, drill, report and follow --once on this machine: one small file each
 * beside the local state, replaced durably when the run ends. A backup that fails leaves no snapshot: here
 * it is seen. The files only inform; losing one costs what status and metrics can say about the past.
 * Of verify and report the vault has a record, too (vault/runlog.h), for those who look from elsewhere.
 */
#ifndef IM_CLI_RUNS_H
#define IM_CLI_RUNS_H

#include "cli/cli.h"

#define RUN_ERROR_BYTES 256

enum run_command { RUN_BACKUP, RUN_VERIFY, RUN_DRILL, RUN_FOLLOW, RUN_REPORT, RUN_COUNT };

struct run_record {
	bool known;                       /* false: none has ended here yet */
	int64_t began_ms, duration_ms;
	int exit_code;
	char error[RUN_ERROR_BYTES];      /* "" if it ended with 0; one printable line */
	int64_t success_ms, success_duration_ms; /* the last that ended with 0; 0: none */
	int64_t damage_ms;                /* when verify found damage; 0 again after one that read everything and found none */
	uint64_t read_bytes, stored_bytes;
	uint64_t runs, failures, read_bytes_total, stored_bytes_total; /* since the file is there */
};

const char *runs_name(enum run_command command);
/* Folder of the local state, by the open vault or else by the key file's vault; asks for no passphrase. Allocated; NULL: not known. */
char *runs_folder(const struct cli *cli);
/* Writes down how the command ended, if it is one of these and there is local state here. A run that found another one at work was none. */
void runs_record(const struct cli *cli, int rc, const struct im_error *err);
void runs_load(const char *folder, const char *node, enum run_command command, struct run_record *ret);
/* When the last one began that did what it is for, whatever it found (0 or 6); 0: none. */
int64_t runs_last_ms(const struct run_record *r);
/* Leaves a signed record of the command's run in the vault, if its key may; how it ended is rc. What keeps it from being written is a note on a
 * terminal and "run_record_error" of the answer, no more. read_percent -1: none. */
void runs_tell_vault(const struct cli *cli, const char *node, int rc, int read_percent, uint64_t damaged);

#endif
