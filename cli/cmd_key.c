/* SPDX-License-Identifier: Apache-2.0 */
/*
 * imvault key: the keyring's people and machines. Changes need a restore key. A new key file is
 * durable before the keyring names it, so that an interrupted command leaves a useless file at
 * worst, never a key nobody holds.
 */
#include "base/cleanup.h"
#include "base/file.h"
#include "base/interrupt.h"
#include "cli/output.h"
#include "cli/passphrase.h"
#include "vault/log.h"
#include "vault/snapshot.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const enum option_id options[] = { OPTION_ROLE, OPTION_NAME, OPTION_OUT, OPTION_NEW_PASSPHRASE_FILE, OPTION_END };

static const char help[] =
    "imvault key: list, add, revoke and rotate keys; change a passphrase.\n"
    "\n"
    "  imvault key list\n"
    "  imvault key add --role node|restore|prune --name TEXT [--node NODE] --out FILE\n"
    "  imvault key revoke ID\n"
    "  imvault key rotate ID --out FILE\n"
    "  imvault key passphrase --key FILE [--new-passphrase-file FILE]\n"
    "\n"
    "  --key FILE    the restore key that signs the change (list: any key)\n"
    "  --vault URL   the vault, if the configuration does not name it\n"
    "  --new-passphrase-file FILE   protects the new key file (asked on a terminal)\n"
    "\n"
    "Revoking a key shuts it out from all that is written afterwards; what it could\n"
    "read before, a copy of the old vault still gives. rotate: a fresh key takes the\n"
    "place of a lost or stolen node key, or of --key itself; the old one is revoked.\n"
    "\n"
    "Examples:\n"
    "  imvault key add --key restore.key --role restore --name 'Li Wei' --out lw.key\n"
    "  imvault key rotate 0f3a9c2be45d7781 --key restore.key --out node.key\n";

static void key_json(json_t *row, const struct key_entry *e)
{
	char hex[17];
	output_text(row, "id", im_hex(hex, e->id, 8));
	output_text(row, "role", key_role_name(e->role));
	output_text(row, "name", e->name);
	output_text(row, "node", e->node);
	output_text(row, "status", e->active ? "active" : "revoked");
	output_text(row, "created", e->created);
	if (e->has_replaces)
		output_text(row, "replaces", im_hex(hex, e->replaces, 8));
}

static int run_list(struct cli *cli, struct im_error *err)
{
	int rc = session_open(cli, SESSION_ANY_KEY, err);
	if (rc)
		return rc;
	const struct keyring *k = cli->vault->keyring;
	output_integer(cli->json, "generation", keyring_generation(k));
	output_array(cli->json, "keys");
	output_line(cli, "%-16s  %-7s  %-7s  %-19s  %-16s  %s", "id", "role", "status", "created", "node", "name");
	for (size_t i = 0; i < keyring_count(k); i++) {
		const struct key_entry *e = keyring_at(k, i);
		char hex[17];
		key_json(output_row(cli->json, "keys"), e);
		output_line(cli, "%-16s  %-7s  %-7s  %-19.19s  %-16s  %s", im_hex(hex, e->id, 8), key_role_name(e->role),
		    e->active ? "active" : "revoked", e->created ? e->created : "", e->node ? e->node : "-", e->name ? e->name : "");
	}
	return 0;
}

/* For a key people hold; a node's key must work unattended and has none unless a file is given. */
static int choose_new_passphrase(const struct cli *cli, enum key_role role, const char *path, char **ret, struct im_error *err)
{
	if (cli->options.new_passphrase_file) {
		*ret = passphrase_from_file(cli->options.new_passphrase_file, err);
		return *ret ? 0 : (int)err->code;
	}
	return role != KEY_NODE && passphrase_terminal() ? passphrase_ask_new(path, ret, err) : 0;
}

/* The fresh key file, saved. */
static int make_key(struct cli *cli, enum key_role role, const char *name, const char *node, struct key_file **ret, struct im_error *err)
{
	const char *out = cli->options.out;
	struct key_file *k = NULL;
	char *passphrase = NULL;
	int rc = key_file_new(cli->vault->id, cli->vault->authority, role, name, node, &k, err);
	if (rc == 0)
		rc = choose_new_passphrase(cli, role, out, &passphrase, err);
	if (rc == 0)
		rc = key_file_save(k, out, passphrase, false, err);
	if (rc == 0 && !passphrase && role != KEY_NODE)
		output_note(cli, "%s is not protected by a passphrase; set one with: imvault key passphrase --key %s", out, out);
	passphrase_free(passphrase);
	if (rc) {
		key_file_free(k);
		return rc;
	}
	*ret = k;
	return 0;
}

/* Says what was made; or takes the file back that the keyring never learned of. */
static int finish_key(struct cli *cli, struct key_file *fresh, int rc)
{
	char hex[17];
	if (rc) {
		unlink(cli->options.out);
	} else {
		output_text(cli->json, "id", im_hex(hex, fresh->id, 8));
		output_text(cli->json, "role", key_role_name(fresh->role));
		output_text(cli->json, "out", cli->options.out);
		output_line(cli, "%s key %s written to %s", key_role_name(fresh->role), hex, cli->options.out);
	}
	key_file_free(fresh);
	return rc;
}

static int run_add(struct cli *cli, struct im_error *err)
{
	const struct options *o = &cli->options;
	enum key_role role;
	if (!o->role || !o->name || !o->out)
		return im_fail(err, IM_EUSAGE, "key add: --%s is missing (see imvault key --help)",
		    !o->role ? "role node|restore|prune" : !o->name ? "name TEXT" : "out FILE");
	if (!key_role_parse(o->role, &role))
		return im_fail(err, IM_EUSAGE, "key add: --role %s is unknown; there are node, restore and prune", o->role);
	if (o->node && role != KEY_NODE)
		return im_fail(err, IM_EUSAGE, "key add: --node is for node keys");
	struct key_file *fresh = NULL;
	int rc = session_open(cli, SESSION_RESTORE_KEY, err);
	if (rc == 0)
		rc = make_key(cli, role, o->name, o->node, &fresh, err);
	return rc ? rc : finish_key(cli, fresh, keyring_add(cli->vault->storage, cli->vault->keyring, fresh, err));
}

/* By its whole id, or by the beginning of it if that is enough (at least 4 digits). */
static int find_key(struct cli *cli, const char *text, const struct key_entry **ret, struct im_error *err)
{
	const struct keyring *k = cli->vault->keyring;
	const struct key_entry *found = NULL;
	size_t len = strlen(text);
	for (size_t i = 0; len >= 4 && len <= 16 && i < keyring_count(k); i++) {
		char hex[17];
		if (strncmp(im_hex(hex, keyring_at(k, i)->id, 8), text, len) != 0)
			continue;
		if (found)
			return im_fail(err, IM_EUSAGE, "several keys begin with %s; give the whole id (imvault key list)", text);
		found = keyring_at(k, i);
	}
	if (!found)
		return im_fail(err, IM_ENOTFOUND, "the keyring has no key %s (imvault key list)", text);
	*ret = found;
	return 0;
}

/* The last snapshot of each node that a node key signed: these stay trusted after its revocation. */
static int find_last_snapshots(struct cli *cli, const struct key_entry *key, json_t *lasts, struct im_error *err)
{
	struct snapshot_list list = { 0 };
	int rc = snapshot_list(cli->vault->storage, NULL, &list, err);
	for (size_t i = list.count; rc == 0 && i-- > 0;) {
		struct snapshot *s = NULL;
		if (json_object_get(lasts, list.items[i].node) ||
		    snapshot_read(cli->vault->storage, cli->vault->keyring, &list.items[i], &s, NULL))
			continue;
		if (memcmp(s->record.signer, key->id, 8) == 0)
			output_integer(lasts, s->node, (int64_t)s->seq);
		snapshot_free(s);
	}
	snapshot_list_clear(&list);
	return rc;
}

static int collect_node(void *context, const char *object, uint64_t size_bytes)
{
	json_t *nodes = context;
	const char *node = object + strlen("logs/"), *end = strchr(node, '/');
	(void)size_bytes;
	if (end && end - node <= 64) {
		char name[65] = "";
		memcpy(name, node, (size_t)(end - node));
		json_object_set_new(nodes, name, json_null());
	}
	return 0;
}

/* The head of the object alone tells whether it is worth reading. What is damaged is not signed by anybody. */
static int signed_by(struct cli *cli, const char *node, const struct log_name *n, const struct key_entry *key, bool *ret, struct im_error *err)
{
	uint8_t head[RECORD_SIGNER_AT + 8];
	struct log_segment *s = NULL;
	struct im_error why = { 0 };
	int rc = storage_read(cli->vault->storage, n->object, 0, head, sizeof head, &why);
	bool claims = rc == 0 && memcmp(head + RECORD_SIGNER_AT, key->id, 8) == 0;
	if (claims)
		rc = log_read(cli->vault->storage, cli->vault->keyring, node, n, &s, &why);
	log_segment_free(s);
	*ret = claims && rc == 0;
	return rc == 0 || rc == IM_ECORRUPT || rc == IM_ENOTFOUND ? 0 : im_fail(err, (enum im_code)rc, "%s", why.text);
}

static int by_last(const void *a, const void *b)
{
	uint32_t x = (*(const struct log_name *const *)a)->last, y = (*(const struct log_name *const *)b)->last;
	return (x > y) - (x < y);
}

/* Of one epoch, from its end back to what the key signed last. */
static int find_last_point(struct cli *cli, const struct key_entry *key, const char *node, const struct log_name *items, size_t count,
    json_t *lasts, struct im_error *err)
{
	auto_free const struct log_name **rows = calloc(count, sizeof *rows);
	auto_free char *name = im_format("%s/%s/%s", node, items->store, items->epoch);
	if (!rows || !name)
		return im_fail(err, IM_ENOMEM, "out of memory");
	for (size_t i = 0; i < count; i++)
		rows[i] = &items[i];
	qsort(rows, count, sizeof *rows, by_last);
	for (size_t i = count; i-- > 0;) {
		bool is_its = false;
		int rc = im_interrupt_check(err);
		if (rc == 0)
			rc = signed_by(cli, node, rows[i], key, &is_its, err);
		if (rc)
			return rc;
		if (is_its) {
			output_integer(lasts, name, rows[i]->last);
			break;
		}
	}
	return 0;
}

/* The last point of each epoch of the log likewise. */
static int find_last_points(struct cli *cli, const struct key_entry *key, const char *node, json_t *lasts, struct im_error *err)
{
	struct log_list list = { 0 };
	int rc = log_list(cli->vault->storage, node, NULL, NULL, 0, &list, err);
	for (size_t i = 0, end; i < list.count && rc == 0; i = end) {
		const struct log_name *n = &list.items[i];
		for (end = i + 1; end < list.count && !strcmp(list.items[end].store, n->store) && !strcmp(list.items[end].epoch, n->epoch);)
			end++;
		rc = find_last_point(cli, key, node, n, end - i, lasts, err);
	}
	log_list_clear(&list);
	return rc;
}

static int find_lasts(struct cli *cli, const struct key_entry *key, char **ret, struct im_error *err)
{
	json_t *lasts = json_object(), *nodes = json_object(), *ignored;
	const char *node;
	int rc = lasts && nodes ? find_last_snapshots(cli, key, lasts, err) : im_fail(err, IM_ENOMEM, "out of memory");
	if (rc == 0)
		rc = storage_list(cli->vault->storage, "logs/", collect_node, nodes, err);
	json_object_foreach(nodes, node, ignored)
		if (rc == 0 && im_name_valid(node) && (!key->node || strcmp(key->node, node) == 0))
			rc = find_last_points(cli, key, node, lasts, err);
	if (rc == 0 && !(*ret = json_dumps(lasts, JSON_COMPACT)))
		rc = im_fail(err, IM_ENOMEM, "out of memory");
	json_decref(nodes);
	json_decref(lasts);
	return rc;
}

static int open_and_find(struct cli *cli, const char *what, const struct key_entry **ret, char **ret_lasts, struct im_error *err)
{
	if (cli->options.operand_count != 2)
		return im_fail(err, IM_EUSAGE, "key %s: name the key by its ID (imvault key list)", what);
	int rc = session_open(cli, SESSION_RESTORE_KEY, err);
	if (rc == 0)
		rc = find_key(cli, cli->options.operands[1], ret, err);
	if (rc == 0 && !(*ret)->active)
		rc = im_fail(err, IM_EUSAGE, "key %s is revoked already", cli->options.operands[1]);
	if (rc == 0 && (*ret)->role == KEY_NODE)
		rc = find_lasts(cli, *ret, ret_lasts, err);
	return rc;
}

static int run_revoke(struct cli *cli, struct im_error *err)
{
	const struct key_entry *old = NULL;
	auto_free char *lasts = NULL;
	char hex[17];
	int rc = open_and_find(cli, "revoke", &old, &lasts, err);
	if (rc == 0)
		rc = keyring_revoke(cli->vault->storage, cli->vault->keyring, old->id, lasts, err);
	if (rc)
		return rc;
	output_text(cli->json, "id", im_hex(hex, old->id, 8));
	output_line(cli, "%s key %s (%s) is revoked: it is shut out from what is written from now on", key_role_name(old->role), hex,
	    old->name ? old->name : "");
	return 0;
}

static int run_rotate(struct cli *cli, struct im_error *err)
{
	const struct key_entry *old = NULL;
	struct key_file *fresh = NULL;
	auto_free char *lasts = NULL;
	if (!cli->options.out)
		return im_fail(err, IM_EUSAGE, "key rotate: --out FILE is missing (see imvault key --help)");
	int rc = open_and_find(cli, "rotate", &old, &lasts, err);
	if (rc == 0)
		rc = make_key(cli, old->role, old->name, old->node, &fresh, err);
	return rc ? rc : finish_key(cli, fresh,
	    keyring_rotate(cli->vault->storage, cli->vault->keyring, old->id, fresh, lasts, err));
}

static int run_passphrase(struct cli *cli, struct im_error *err)
{
	struct key_file *k = NULL;
	char *passphrase = NULL;
	if (!cli->options.key)
		return im_fail(err, IM_EUSAGE, "key passphrase: --key FILE is missing");
	if (!cli->options.new_passphrase_file && !passphrase_terminal())
		return im_fail(err, IM_EUSAGE, "key passphrase: without a terminal, give --new-passphrase-file FILE");
	int rc = key_file_load(cli->options.key, session_ask, cli, &k, err);
	if (rc == 0)
		rc = cli->options.new_passphrase_file || k->role != KEY_NODE
		         ? choose_new_passphrase(cli, k->role, cli->options.key, &passphrase, err)
		         : passphrase_ask_new(cli->options.key, &passphrase, err);
	if (rc == 0)
		rc = key_file_save(k, cli->options.key, passphrase, true, err);
	if (rc == 0) {
		output_boolean(cli->json, "protected", passphrase != NULL);
		output_line(cli, "%s is %s", cli->options.key, passphrase ? "protected by the new passphrase" : "no longer protected");
	}
	passphrase_free(passphrase);
	key_file_free(k);
	return rc == IM_ENOTFOUND ? (int)(err->code = IM_EUSAGE) : rc;
}

static int run(struct cli *cli, struct im_error *err)
{
	static const struct {
		const char *name;
		int operands;
		int (*run)(struct cli *cli, struct im_error *err);
	} verbs[] = { { "list", 1, run_list }, { "add", 1, run_add }, { "revoke", 2, run_revoke }, { "rotate", 2, run_rotate },
		{ "passphrase", 1, run_passphrase } };
	const char *verb = cli->options.operand_count ? cli->options.operands[0] : "";
	for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++) {
		if (strcmp(verbs[i].name, verb) != 0)
			continue;
		if (cli->options.operand_count > verbs[i].operands)
			return im_fail(err, IM_EUSAGE, "key %s: unexpected argument %s", verb, cli->options.operands[verbs[i].operands]);
		return verbs[i].run(cli, err);
	}
	return im_fail(err, IM_EUSAGE, *verb ? "key: there is no \"%s\"; there are list, add, revoke, rotate, passphrase"
	                                     : "key: what?%s There are list, add, revoke, rotate, passphrase (see imvault key --help)", verb);
}

const struct command cmd_key = { "key", "list and change keys", help, options, 2, run };
