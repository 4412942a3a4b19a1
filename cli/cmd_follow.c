/* SPDX-License-Identifier: Apache-2.0 */
/*
 * imvault follow: the service that ships the log, and one round of it for cron. Snapshots that the
 * log needs are taken by another process of this program, so that one cannot harm the other.
 */
#include "backup/follow.h"

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/interrupt.h"
#include "cli/alert.h"
#include "cli/output.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static const enum option_id options[] = { OPTION_ONCE, OPTION_END };

static const char help[] =
    "imvault follow: keep shipping what the stores write, so that a restore can\n"
    "reach any instant. Runs until SIGTERM; a service for systemd.\n"
    "\n"
    "  imvault [-c FILE] follow [STORE...] [--once]\n"
    "\n"
    "  STORE...    only these stores; otherwise all that can be followed\n"
    "  --once      one round: capture and ship what is new, then end (for cron)\n"
    "\n"
    "Databases in WAL mode are followed without write locks and without checkpoints\n"
    "that could make a server wait. While the vault is away a bounded, encrypted\n"
    "spool takes what is captured. If a store cannot be followed without a gap, the\n"
    "gap is recorded and said (--once: exit 3), and a new snapshot is taken at once.\n"
    "SIGHUP reads the configuration again. Section [follow] of imvault.conf(5).\n"
    "\n"
    "Examples:\n"
    "  imvault follow\n"
    "  systemctl enable --now imvault-follow       see scripts/systemd\n"
    "  * * * * * root imvault follow --once        in /etc/cron.d/imvault\n";

struct snapshots { /* the other process */
	struct cli *cli;
	struct alert_watch *watch; /* NULL: nobody is told */
	pthread_mutex_t lock;
	pid_t child;   /* 0: none */
	bool cancelled;
};

static void on_warn(void *context, const char *store, const char *text)
{
	(void)context;
	if (store)
		output_problem("store %s: %s", store, text);
	else
		output_problem("%s", text);
}

static void on_note(void *context, const char *store, const char *text)
{
	const struct snapshots *s = context;
	if (store)
		output_note(s->cli, "store %s: %s", store, text);
	else
		output_note(s->cli, "%s", text);
}

static void on_gap(void *context, const char *store, const char *text)
{
	const struct snapshots *s = context;
	alert_watch_gap(s->watch, store, text);
}

static void on_look(void *context, const struct follow_look *stores, size_t count)
{
	const struct snapshots *s = context;
	alert_watch_look(s->watch, stores, count);
}

/* --- snapshots --- */

static size_t add_option(const char **argv, size_t n, const char *name, const char *value)
{
	if (value) {
		argv[n++] = name;
		argv[n++] = value;
	}
	return n;
}

static const char **backup_arguments(const struct cli *cli, const char *const *stores)
{
	const struct options *o = &cli->options;
	size_t count = 0, n = 0;
	while (stores[count])
		count++;
	const char **argv = calloc(count + 16, sizeof *argv);
	if (!argv)
		return NULL;
	argv[n++] = "imvault";
	n = add_option(argv, n, "--config", o->config);
	n = add_option(argv, n, "--vault", o->vault);
	n = add_option(argv, n, "--key", o->key);
	n = add_option(argv, n, "--node", o->node);
	n = add_option(argv, n, "--passphrase-file", o->passphrase_file);
	argv[n++] = "--quiet";
	argv[n++] = "backup";
	for (size_t i = 0; i < count; i++)
		argv[n++] = stores[i];
	return argv;
}

static int spawn(const char *const *argv, pid_t *ret, struct im_error *err)
{
	extern char **environ;
	posix_spawn_file_actions_t files;
	posix_spawnattr_t attributes;
	sigset_t all, none;
	sigfillset(&all);
	sigemptyset(&none);
	posix_spawn_file_actions_init(&files);
	posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_addopen(&files, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
	posix_spawnattr_init(&attributes);
	posix_spawnattr_setsigdefault(&attributes, &all);
	posix_spawnattr_setsigmask(&attributes, &none);
	posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);
	int error = posix_spawn(ret, "/proc/self/exe", &files, &attributes, (char *const *)argv, environ);
	posix_spawn_file_actions_destroy(&files);
	posix_spawnattr_destroy(&attributes);
	return error ? im_fail_errno(err, IM_EFAIL, error, "cannot start imvault backup") : 0;
}

static int start(struct snapshots *s, const char *const *stores, struct im_error *err)
{
	const char **argv = backup_arguments(s->cli, stores);
	if (!argv)
		return im_fail(err, IM_ENOMEM, "out of memory");
	pthread_mutex_lock(&s->lock);
	int rc = s->cancelled ? im_fail(err, IM_EINTERRUPTED, "the follower ends") : spawn(argv, &s->child, err);
	pthread_mutex_unlock(&s->lock);
	free(argv);
	return rc;
}

/* Waits without reaping first, so that the number stays the child's as long as somebody may signal it. */
static int wait_for(struct snapshots *s)
{
	siginfo_t info;
	int status = 0;
	while (waitid(P_PID, (id_t)s->child, &info, WEXITED | WNOWAIT) && errno == EINTR)
		continue;
	pthread_mutex_lock(&s->lock);
	while (waitpid(s->child, &status, 0) < 0 && errno == EINTR)
		continue;
	s->child = 0;
	pthread_mutex_unlock(&s->lock);
	return status;
}

/* An exit status as a code. */
static int code_of(int status)
{
	static const int codes[] = { IM_OK, IM_EFAIL, IM_EUSAGE, IM_EPARTIAL, IM_EUNREACHABLE, IM_EKEY, IM_ECORRUPT, IM_ENOTFOUND,
		IM_ENOSPACE, IM_ELOCKED, IM_EMISSED, IM_EDIFFERENT };
	if (!WIFEXITED(status))
		return IM_EINTERRUPTED;
	return WEXITSTATUS(status) < (int)(sizeof codes / sizeof *codes) ? codes[WEXITSTATUS(status)] : (int)IM_EFAIL;
}

static int on_snapshot(void *context, const char *const *stores, struct im_error *err)
{
	struct snapshots *s = context;
	int rc = start(s, stores, err);
	if (rc)
		return rc;
	rc = code_of(wait_for(s));
	if (!rc || rc == IM_EPARTIAL)
		return rc;
	const char *meaning = im_exit_meaning(im_exit_status(rc, SIGTERM));
	return im_fail(err, (enum im_code)rc, "imvault backup: %s", meaning ? meaning : "it was ended by a signal");
}

static void on_cancel(void *context)
{
	struct snapshots *s = context;
	pthread_mutex_lock(&s->lock);
	s->cancelled = true;
	if (s->child)
		kill(s->child, SIGTERM);
	pthread_mutex_unlock(&s->lock);
}

/* --- answers --- */

static void store_json(json_t *row, const struct follow_store *s)
{
	output_text(row, "name", s->name);
	output_text(row, "type", s->type);
	output_text(row, "status", s->status);
	output_text(row, "text", s->text);
	output_text(row, "epoch", s->epoch[0] ? s->epoch : NULL);
	output_integer(row, "point", s->point);
	output_integer(row, "segments", (int64_t)s->segments);
	output_integer(row, "bytes_changed", (int64_t)s->bytes_changed);
	output_integer(row, "bytes_shipped", (int64_t)s->bytes_shipped);
	output_integer(row, "spooled_bytes", s->spooled_bytes);
	if (s->commits)
		output_integer(row, "commits", (int64_t)s->commits);
	if (s->complete_ms)
		output_instant(row, "complete", s->complete_ms);
}

static void say(const struct cli *cli, const struct follow_result *r)
{
	char changed[24], shipped[24];
	for (size_t i = 0; i < r->store_count; i++) {
		const struct follow_store *s = &r->stores[i];
		output_line(cli, "  %-14s %-9s point %-8" PRIu32 " changed %8s  shipped %8s", s->name, s->status, s->point,
		    im_bytes_format(changed, sizeof changed, s->bytes_changed), im_bytes_format(shipped, sizeof shipped, s->bytes_shipped));
	}
}

static void answer(struct cli *cli, const struct follow_result *r)
{
	output_text(cli->json, "node", r->node);
	output_array(cli->json, "stores");
	for (size_t i = 0; i < r->store_count; i++)
		store_json(output_row(cli->json, "stores"), &r->stores[i]);
	if (isatty(STDOUT_FILENO))
		say(cli, r);
}

/* --- the command --- */

/* Keeps the old configuration if the new one is wrong: a typo must not end the service. */
static bool reload(struct cli *cli)
{
	struct im_config *old = cli->config;
	struct im_error why = { 0 };
	cli->config = NULL;
	if (session_config(cli, true, &why) == 0) {
		im_config_free(old);
		output_note(cli, "the configuration was read again");
		return true;
	}
	cli->config = old;
	output_problem("the configuration stays as it was: %s", why.text);
	return false;
}

static int follow(struct cli *cli, struct alert_watch *watch, bool *ret_reload, struct im_error *err)
{
	struct options *o = &cli->options;
	struct snapshots snapshots = { .cli = cli, .watch = watch, .lock = PTHREAD_MUTEX_INITIALIZER };
	const struct follow_events events = { .warn = on_warn, .note = on_note, .gap = on_gap, .look = on_look, .snapshot = on_snapshot, .cancel = on_cancel, .context = &snapshots };
	const struct follow_service_request request = {
		.config = cli->config, .vault_url = o->vault, .key_path = o->key, .node = o->node, .once = o->once, .ask = session_ask,
		.ask_context = cli, .events = &events,
		.stores = o->operand_count ? (const char *const *)o->operands : NULL, /* argv ends with NULL */
	};
	struct follow_result result;
	int rc = follow_run(&request, ret_reload, &result, err);
	if (!*ret_reload)
		answer(cli, &result);
	follow_result_clear(&result);
	return rc;
}

static int run(struct cli *cli, struct im_error *err)
{
	bool again = true;
	int rc = session_config(cli, true, err);
	if (rc)
		return rc;
	im_interrupt_catch_hangup();
	struct alert_watch *watch = cli->options.once ? NULL : alert_watch_start(cli);
	while (rc == 0 && again) {
		rc = follow(cli, watch, &again, err);
		if (rc == 0 && again && reload(cli))
			alert_watch_configure(watch, cli->config);
	}
	alert_watch_stop(watch);
	return rc;
}

const struct command cmd_follow = { "follow", "ship the log", help, options, -1, run };
