/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of alerts share: an alert, what was said before, and the ways to say it.
 */
#ifndef IM_CLI_ALERT_INTERNAL_H
#define IM_CLI_ALERT_INTERNAL_H

#include "base/bytes.h"
#include "base/config.h"
#include "base/error.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* --- an alert --- */

enum alert_kind { ALERT_BACKUP, ALERT_LOG, ALERT_VAULT, ALERT_DAMAGE, ALERT_SPACE, ALERT_LOCKED, ALERT_VERIFY, ALERT_DRILL, ALERT_RESTORE,
	ALERT_STATUS, ALERT_TEST, ALERT_KIND_COUNT };
enum alert_severity { ALERT_RESOLVED, ALERT_WARNING, ALERT_CRITICAL };

struct alert_origin { /* borrowed: what all alerts of a run share */
	const struct im_config *config;
	const char *config_path; /* NULL: the usual one */
	const char *node, *vault;
	const char *command;
};

struct alert {
	enum alert_kind kind;
	enum alert_severity severity;
	char *store;    /* "": the whole node */
	char *about;    /* tells several of one kind and store apart; "" */
	char *text;     /* what happened: one line of UTF-8 without control characters */
	int exit_code;  /* of the command; -1: it still runs */
	int proof;      /* how thorough a verify must be to settle it: 0 plain, 2 every byte */
	int64_t since_ms;
	json_t *details; /* flat object; NULL: none */
	bool claimed;   /* it is ours to send */
};

struct alert_list {
	struct alert *items;
	size_t count;
};

const char *alert_kind_name(enum alert_kind kind);
bool alert_kind_parse(const char *name, enum alert_kind *ret);
const char *alert_severity_name(enum alert_severity severity);
bool alert_is_configured(const struct im_config *c);

/* Appends; the texts are copied and cleaned. NULL without memory: then there is no such alert. */
struct alert *alert_add(struct alert_list *l, enum alert_kind kind, enum alert_severity severity, const char *store, const char *text);
void alert_list_clear(struct alert_list *l);
/* What to do, as sentences; and the command line that says more, allocated. */
const char *alert_advice(const struct alert *a);
char *alert_run_hint(const struct alert_origin *o, const struct alert *a);
/* A sentence without its quantities, so that "3 h 5 min late" and "3 h 6 min late" are the same. Allocated. */
char *alert_gist(const char *text);
/* The message of the webhook and the command; owned by the caller, NULL without memory. */
json_t *alert_json(const struct alert_origin *o, const struct alert *a, int64_t now_ms);

/* --- alert_judge.c: how a run ended --- */

struct cli;
struct alert_known { /* an alert that is open; borrowed */
	enum alert_kind kind;
	const char *store, *command;
	int proof;
};
/* Is this a run that alerts are about at all? */
bool alert_judges(const struct cli *cli, int rc);
void alert_judge(const struct cli *cli, int rc, int status, const struct im_error *err, struct alert_list *ret);
/* Has this run shown that it is over? (What the run raised itself is not asked.) */
bool alert_settles(const struct cli *cli, int rc, const struct alert_known *k);

/* --- alert_memory.c: what was said, in STATE/NODE.alerts.json --- */

struct alert_memory;
/* Locks it until it is closed. IM_ELOCKED: somebody has held it for seconds. */
int alert_memory_open(const struct alert_origin *o, struct alert_memory **ret, struct im_error *err);
/* Writes it if it was changed, and unlocks. */
int alert_memory_close(struct alert_memory *m, struct im_error *err);
void alert_memory_abandon(struct alert_memory *m);
/* Sets a->claimed if it is to be sent now: it is new, of another severity, or was sent repeat ago. Whoever claims it is the only one
 * who sends it; if he dies, it is free again after some minutes. Fills since_ms. */
void alert_memory_claim(struct alert_memory *m, struct alert *a, int64_t now_ms, int64_t repeat_ms);
/* Adds a claimed `resolved` alert for each one that is open, was sent, is not among raised, and of which settles says so. */
typedef bool alert_settles_fn(void *context, const struct alert_known *k);
void alert_memory_settle(struct alert_memory *m, const struct alert_list *raised, alert_settles_fn *settles, void *context, int64_t now_ms,
    struct alert_list *ret);
/* After sending: it was heard, or nobody could be reached and it is free again. */
void alert_memory_sent(struct alert_memory *m, const struct alert *a, bool heard, int64_t now_ms);
/* How often in a row the command has met the lock, now counted. refused false: not this time, so 0. */
int alert_memory_refused(struct alert_memory *m, bool refused);
/* Those that are open, oldest first: objects with kind, store, severity, text, command, since_ms, sent_ms (0: nobody could be
 * reached yet); borrowed. */
const json_t *alert_memory_rows(const struct alert_memory *m);

/* --- alert_send.c: the ways --- */

struct alert_way {
	const char *name;
	bool (*is_set)(const struct im_config *c);
	/* Where it goes, for people, without secrets. Allocated. */
	char *(*target)(const struct im_config *c);
	int (*send)(const struct alert_origin *o, const struct alert *a, struct im_error *err);
};
#define ALERT_WAY_COUNT 3
extern const struct alert_way alert_ways[ALERT_WAY_COUNT];

/* alert_mail.c. The next address of a list; *at moves on. NULL: that was all. */
const char *alert_mail_address(const char **at, size_t *ret_len);
/* The whole message, RFC 5322, with CRLF line ends. Nothing in it can become another header. */
int alert_mail_compose(const struct alert_origin *o, const struct alert *a, int64_t now_ms, struct im_buf *ret, struct im_error *err);

/* alert_curl.c: the only one that includes libcurl. */
int alert_curl_post(const char *url, const char *body, struct im_error *err);
int alert_curl_mail(const struct im_config *c, const struct im_buf *message, struct im_error *err);
/* The host of a URL, "?" if it has none. Allocated. */
char *alert_curl_host(const char *url);

/* Asks for a URL and does not care for the answer's content. patient: as for a webhook; else one attempt of three seconds. */
int alert_curl_ping(const char *url, bool patient, struct im_error *err);

/* alert_ping.c: what is to be told how this command goes, or NULL. */
const char *alert_ping_url(const struct im_config *c, const char *command);

/* --- alert.c --- */

/* Sends what is new of raised and what is over, and remembers it. Returns whether anything is open then (also if nobody knows). */
bool alert_deliver(const struct alert_origin *o, struct alert_list *raised, alert_settles_fn *settles, void *context);

#endif
