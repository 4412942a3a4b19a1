/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A message store as Prosody 0.12's mod_storage_sql and mod_mam leave it on SQLite: the tables and
 * indexes word for word, a random UUID as archive id, a 1:1 message once in the sender's and once in
 * the recipient's archive, group chat once in the room's log, a message from another server once.
 * Conversations differ in size as they do in life (Zipf). The population (users, who talks to whom)
 * follows from the number of accounts alone, so that a store can be grown later by the same people.
 *
 * Making one is bulk loading (no journal, no sync) but in time order with the indexes in place, so
 * that pages are as full and as scattered as in a store that grew for a year. The live writer
 * behaves as Prosody does: one transaction per row, no PRAGMA, no busy timeout, what is refused
 * is not tried again.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "make_rng.h"
#include "make_store.h"

#define HOST "im.example.org"
#define ROOMS_HOST "rooms.im.example.org"
#define COUNT(array) ((uint32_t)(sizeof(array) / sizeof((array)[0])))

enum {
	ROW_BYTES_ESTIMATE = 780, /* with indexes, measured */
	ROWS_PER_USER = 150,
	CONVERSATIONS_PER_USER = 8,
	USERS_PER_ROOM = 25,
	FIRST_INSTANT = 1700000000,
	HISTORY_SECONDS = 400 * 86400,
	SIZE_CHECK_ROWS = 2048,
};

static const char schema[] =
	"CREATE TABLE IF NOT EXISTS \"prosody\" (\"host\" TEXT NOT NULL, \"user\" TEXT NOT NULL, "
	"\"store\" TEXT NOT NULL, \"key\" TEXT NOT NULL, \"type\" TEXT NOT NULL, "
	"\"value\" TEXT NOT NULL);"
	"CREATE INDEX IF NOT EXISTS \"prosody_index\" ON \"prosody\" "
	"(\"host\", \"user\", \"store\", \"key\");"
	"CREATE TABLE IF NOT EXISTS \"prosodyarchive\" ("
	"\"sort_id\" INTEGER PRIMARY KEY AUTOINCREMENT, \"host\" TEXT NOT NULL, "
	"\"user\" TEXT NOT NULL, \"store\" TEXT NOT NULL, \"key\" TEXT NOT NULL, "
	"\"when\" INTEGER NOT NULL, \"with\" TEXT NOT NULL, \"type\" TEXT NOT NULL, "
	"\"value\" TEXT NOT NULL);"
	"CREATE UNIQUE INDEX IF NOT EXISTS \"prosodyarchive_index\" ON \"prosodyarchive\" "
	"(\"host\", \"user\", \"store\", \"key\");"
	"CREATE INDEX IF NOT EXISTS \"prosodyarchive_with_when\" ON \"prosodyarchive\" "
	"(\"host\", \"user\", \"store\", \"with\", \"when\");"
	"CREATE INDEX IF NOT EXISTS \"prosodyarchive_when\" ON \"prosodyarchive\" "
	"(\"host\", \"user\", \"store\", \"when\");"
	"CREATE INDEX IF NOT EXISTS \"prosodyarchive_sort\" ON \"prosodyarchive\" "
	"(\"host\", \"user\", \"store\", \"sort_id\");";

struct user {
	char name[20];
	char resource[27];
	bool long_ids;
};

struct maker {
	const struct archive_options *options;
	sqlite3 *db;
	sqlite3_stmt *insert, *begin, *commit, *rollback;
	struct text *text;
	struct rng rng;
	struct zipf conversation_law, room_law;
	struct user *users;
	uint32_t user_count;
	struct str stanza;
	int ack_fd;         /* -1: none */
	bool live;          /* a transaction per row, refusals are counted */
	double now;         /* of the next message */
	uint64_t messages, rows, refused;
};

static void run(sqlite3 *db, const char *sql)
{
	char *why = NULL;

	if (sqlite3_exec(db, sql, NULL, NULL, &why) != SQLITE_OK)
		make_die("SQLite: %s (in: %.60s)", why, sql);
}

static int64_t ask(sqlite3 *db, const char *sql)
{
	sqlite3_stmt *statement;
	int64_t answer = 0;

	if (sqlite3_prepare_v2(db, sql, -1, &statement, NULL) != SQLITE_OK)
		make_die("SQLite: %s (in: %.60s)", sqlite3_errmsg(db), sql);
	if (sqlite3_step(statement) == SQLITE_ROW)
		answer = sqlite3_column_int64(statement, 0);
	sqlite3_finalize(statement);
	return answer;
}

static sqlite3_stmt *prepare(sqlite3 *db, const char *sql)
{
	sqlite3_stmt *statement;

	if (sqlite3_prepare_v2(db, sql, -1, &statement, NULL) != SQLITE_OK)
		make_die("SQLite: %s (in: %.60s)", sqlite3_errmsg(db), sql);
	return statement;
}

/* People */

static void name_user(struct user *user, uint32_t number)
{
	static const char *const names[] = { "wei", "li", "anna", "chen", "ming", "otto", "xiaoyu",
		"maria", "fang", "jun", "sofia", "tao", "emma", "hong", "lukas", "yan", "paul", "na",
		"lina", "qiang", "tom", "ying", "felix", "hui" };
	static const char *const clients[] = { "Conversations.%04x", "gajim.%08X", "Monal-iOS.%06x",
		"dino.%08x", "web-%07x" };
	uint64_t h = rng_mix(number + 0x75736572u);

	snprintf(user->name, sizeof(user->name), "%s%u", names[h % COUNT(names)], number);
	snprintf(user->resource, sizeof(user->resource), clients[(h >> 8) % COUNT(clients)],
		 (unsigned int)(h >> 40));
	user->long_ids = (h >> 8) % COUNT(clients) % 3 == 1; /* gajim, web */
}

static void populate(struct maker *maker, uint32_t user_count)
{
	maker->user_count = user_count;
	maker->users = make_alloc(user_count * sizeof(*maker->users));
	for (uint32_t i = 0; i < user_count; i++)
		name_user(&maker->users[i], i);
	zipf_init(&maker->conversation_law, user_count * CONVERSATIONS_PER_USER, 1.0, 20);
	zipf_init(&maker->room_law, user_count / USERS_PER_ROOM + 2, 0.9, 3);
}

static void insert_account_value(sqlite3_stmt *insert, const char *user, const char *store,
				 const char *key, const char *type, const char *value)
{
	const char *columns[] = { HOST, user, store, key, type, value };

	for (uint32_t i = 0; i < COUNT(columns); i++)
		sqlite3_bind_text(insert, (int)i + 1, columns[i], -1, SQLITE_TRANSIENT);
	if (sqlite3_step(insert) != SQLITE_DONE)
		make_die("SQLite: %s", sqlite3_errmsg(sqlite3_db_handle(insert)));
	sqlite3_reset(insert);
}

static void random_hex(struct rng *rng, char *hex, uint32_t digits)
{
	static const char alphabet[] = "0123456789abcdef";
	uint64_t bits = 0;

	for (uint32_t i = 0; i < digits; i++) {
		if (i % 16 == 0)
			bits = rng_next(rng);
		hex[i] = alphabet[bits & 15];
		bits >>= 4;
	}
	hex[digits] = '\0';
}

/* What mod_auth_internal_hashed and rostermanager keep of each user. */
static void make_accounts(struct maker *maker)
{
	sqlite3_stmt *insert = prepare(maker->db, "INSERT INTO \"prosody\" "
		"(\"host\",\"user\",\"store\",\"key\",\"type\",\"value\") VALUES (?,?,?,?,?,?)");
	char hex[41], contact[64];

	for (uint32_t i = 0; i < maker->user_count; i++) {
		const char *user = maker->users[i].name;

		random_hex(&maker->rng, hex, 40);
		insert_account_value(insert, user, "accounts", "stored_key", "string", hex);
		random_hex(&maker->rng, hex, 40);
		insert_account_value(insert, user, "accounts", "server_key", "string", hex);
		random_hex(&maker->rng, hex, 36);
		insert_account_value(insert, user, "accounts", "salt", "string", hex);
		insert_account_value(insert, user, "accounts", "iteration_count", "number", "10000");
		for (uint32_t c = 0; c < CONVERSATIONS_PER_USER; c++) {
			uint32_t other = rng_below(&maker->rng, maker->user_count);

			snprintf(contact, sizeof(contact), "%s@" HOST, maker->users[other].name);
			insert_account_value(insert, user, "roster", contact, "json",
				"{\"subscription\":\"both\",\"groups\":{\"Friends\":true}}");
		}
	}
	sqlite3_finalize(insert);
}

/* Stanzas */

static void random_uuid(struct rng *rng, char uuid[37])
{
	char hex[33];

	random_hex(rng, hex, 32);
	snprintf(uuid, 37, "%.8s-%.4s-4%.3s-%c%.3s-%.12s", hex, hex + 8, hex + 12,
		 "89ab"[hex[15] & 3], hex + 16, hex + 19);
}

/* Some clients use UUIDs as message ids, most something shorter. */
static void message_id(struct maker *maker, const struct user *from, char id[37])
{
	static const char alphabet[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
	uint64_t bits = rng_next(&maker->rng);

	if (from->long_ids) {
		random_uuid(&maker->rng, id);
		return;
	}
	for (uint32_t i = 0; i < 10; i++, bits >>= 6)
		id[i] = alphabet[bits & 63];
	id[10] = '\0';
}

static void add_client_tags(struct maker *maker, const char *id)
{
	struct str *out = &maker->stanza;
	uint32_t kind = rng_below(&maker->rng, 10);

	str_printf(out, "<origin-id id='%s' xmlns='urn:xmpp:sid:0'/>", id);
	if (kind < 9)
		str_puts(out, "<request xmlns='urn:xmpp:receipts'/>"
			      "<markable xmlns='urn:xmpp:chat-markers:0'/>");
	if (kind < 8)
		str_puts(out, "<active xmlns='http://jabber.org/protocol/chatstates'/>");
}

static void add_body(struct maker *maker, bool chinese)
{
	str_puts(&maker->stanza, "<body>");
	text_body(maker->text, &maker->rng, chinese, &maker->stanza);
	str_puts(&maker->stanza, "</body>");
}

static void add_chat(struct maker *maker, const char *from, const char *to, const char *id,
		     bool chinese)
{
	str_printf(&maker->stanza,
		   "<message id='%s' type='chat' to='%s' from='%s' xml:lang='%s'>", id, to, from,
		   chinese ? "zh" : "en");
	add_body(maker, chinese);
	add_client_tags(maker, id);
}

/* Rows */

static void acknowledge(struct maker *maker, const char *key)
{
	char line[80];
	int length;

	if (maker->ack_fd < 0)
		return;
	length = snprintf(line, sizeof(line), "%" PRId64 " %s\n",
			  (int64_t)sqlite3_last_insert_rowid(maker->db), key);
	if (write(maker->ack_fd, line, (size_t)length) != length)
		make_die("cannot write %s: %s", maker->options->ack_path, strerror(errno));
}

static int step_and_reset(sqlite3_stmt *statement)
{
	int rc = sqlite3_step(statement);

	sqlite3_reset(statement);
	return rc == SQLITE_DONE || rc == SQLITE_ROW ? SQLITE_OK : rc;
}

static int insert_row(struct maker *maker)
{
	int rc = maker->live ? step_and_reset(maker->begin) : SQLITE_OK;

	if (rc == SQLITE_OK)
		rc = step_and_reset(maker->insert);
	if (rc == SQLITE_OK && maker->live)
		rc = step_and_reset(maker->commit);
	if (rc != SQLITE_OK && maker->live && !sqlite3_get_autocommit(maker->db))
		step_and_reset(maker->rollback);
	return rc;
}

static void add_row(struct maker *maker, const char *host, const char *user, const char *store,
		    const char *with)
{
	char key[37];
	int rc;

	random_uuid(&maker->rng, key);
	sqlite3_bind_text(maker->insert, 1, host, -1, SQLITE_STATIC);
	sqlite3_bind_text(maker->insert, 2, user, -1, SQLITE_STATIC);
	sqlite3_bind_text(maker->insert, 3, store, -1, SQLITE_STATIC);
	sqlite3_bind_int64(maker->insert, 4, (int64_t)maker->now);
	sqlite3_bind_text(maker->insert, 5, with, -1, SQLITE_STATIC);
	sqlite3_bind_text(maker->insert, 6, key, -1, SQLITE_STATIC);
	sqlite3_bind_text(maker->insert, 7, maker->stanza.data, (int)maker->stanza.length,
			  SQLITE_STATIC);
	rc = insert_row(maker);
	if (rc == SQLITE_OK) {
		maker->rows++;
		acknowledge(maker, key);
	} else if (maker->live && (rc & 0xff) == SQLITE_BUSY) {
		maker->refused++; /* Prosody logs a line and goes on: the message is lost */
		fprintf(stderr, "refused: %s\n", sqlite3_errmsg(maker->db));
	} else {
		make_die("SQLite: %s", sqlite3_errmsg(maker->db));
	}
}

static void add_direct_message(struct maker *maker, bool federated)
{
	uint32_t conversation = zipf_draw(&maker->conversation_law, &maker->rng);
	uint64_t h = rng_mix(conversation + 0x74616c6bu);
	uint32_t a = (uint32_t)(h % maker->user_count);
	uint32_t b = (a + 1 + (uint32_t)((h >> 32) % (maker->user_count - 1))) % maker->user_count;
	bool chinese = (h >> 24) % 100 < 45, swap = rng_next(&maker->rng) & 1;
	const struct user *from = &maker->users[swap ? b : a], *to = &maker->users[swap ? a : b];
	char from_jid[96], to_jid[64], id[37], remote_id[37];

	message_id(maker, from, id);
	snprintf(from_jid, sizeof(from_jid), "%s@%s/%s", from->name,
		 federated ? "chat.example.net" : HOST, from->resource);
	snprintf(to_jid, sizeof(to_jid), "%s@" HOST, to->name);
	maker->stanza.length = 0;
	add_chat(maker, from_jid, to_jid, id, chinese);
	if (federated) { /* the other server's archive id stays in the stanza; it has the other copy */
		random_uuid(&maker->rng, remote_id);
		str_printf(&maker->stanza, "<stanza-id id='%s' by='%s@chat.example.net' "
			   "xmlns='urn:xmpp:sid:0'/>", remote_id, from->name);
	}
	str_puts(&maker->stanza, "</message>");
	if (!federated)
		add_row(maker, HOST, from->name, "archive", to_jid);
	from_jid[strcspn(from_jid, "/")] = '\0';
	add_row(maker, HOST, to->name, "archive", from_jid);
}

static void add_room_message(struct maker *maker)
{
	uint32_t room = zipf_draw(&maker->room_law, &maker->rng);
	uint32_t member = (room * USERS_PER_ROOM + rng_below(&maker->rng, USERS_PER_ROOM * 2)) %
			  maker->user_count;
	const struct user *from = &maker->users[member];
	char name[24], id[37];

	snprintf(name, sizeof(name), "%s%u", room % 3 ? "team" : "project", room);
	message_id(maker, from, id);
	maker->stanza.length = 0;
	str_printf(&maker->stanza, "<message id='%s' type='groupchat' from='%s@" ROOMS_HOST
		   "/%s' xml:lang='%s'>", id, name, from->name, room % 2 ? "zh" : "en");
	add_body(maker, room % 2);
	add_client_tags(maker, id);
	str_printf(&maker->stanza, "<x xmlns='http://jabber.org/protocol/muc#user'><item "
		   "affiliation='member' role='participant' jid='%s@" HOST "'/></x></message>",
		   from->name);
	add_row(maker, ROOMS_HOST, name, "muc_log", "message<groupchat");
}

static void add_message(struct maker *maker)
{
	uint32_t kind = rng_below(&maker->rng, 100);

	if (kind < 75)
		add_direct_message(maker, false);
	else if (kind < 85)
		add_direct_message(maker, true);
	else
		add_room_message(maker);
	maker->messages++;
}

/* The three ways to run */

static void maker_open(struct maker *maker, const struct archive_options *options, int flags)
{
	memset(maker, 0, sizeof(*maker));
	maker->options = options;
	maker->ack_fd = -1;
	if (sqlite3_open_v2(options->db_path, &maker->db, flags, NULL) != SQLITE_OK)
		make_die("cannot open %s: %s", options->db_path, sqlite3_errmsg(maker->db));
	sqlite3_busy_timeout(maker->db, (int)options->busy_ms);
	maker->text = text_new(options->corpus_path);
}

static void maker_prepare(struct maker *maker)
{
	maker->insert = prepare(maker->db, "INSERT INTO \"prosodyarchive\" (\"host\",\"user\","
		"\"store\",\"when\",\"with\",\"key\",\"type\",\"value\") "
		"VALUES (?,?,?,?,?,?,'xml',?)");
	maker->begin = prepare(maker->db, "BEGIN");
	maker->commit = prepare(maker->db, "COMMIT");
	maker->rollback = prepare(maker->db, "ROLLBACK");
}

static void maker_close(struct maker *maker)
{
	sqlite3_finalize(maker->insert);
	sqlite3_finalize(maker->begin);
	sqlite3_finalize(maker->commit);
	sqlite3_finalize(maker->rollback);
	if (sqlite3_close(maker->db) != SQLITE_OK)
		make_die("cannot close %s", maker->options->db_path);
	if (maker->ack_fd >= 0)
		close(maker->ack_fd);
	text_free(maker->text);
	zipf_clear(&maker->conversation_law);
	zipf_clear(&maker->room_law);
	free(maker->users);
	free(maker->stanza.data);
}

static void report(struct maker *maker)
{
	printf("messages=%" PRIu64 " rows=%" PRIu64 " refused=%" PRIu64 " last_id=%" PRId64
	       " pages=%" PRId64 " page_size=%" PRId64 "\n", maker->messages, maker->rows,
	       maker->refused, ask(maker->db, "SELECT max(sort_id) FROM prosodyarchive"),
	       ask(maker->db, "PRAGMA page_count"), ask(maker->db, "PRAGMA page_size"));
}

static void bulk_pragmas(struct maker *maker, uint64_t size_bytes)
{
	uint64_t cache_kib = size_bytes / 1024 + 16384;
	char sql[160];

	if (cache_kib > 1536 * 1024)
		cache_kib = 1536 * 1024;
	snprintf(sql, sizeof(sql), "PRAGMA page_size=%" PRIu32 "; PRAGMA cache_size=-%" PRIu64 ";"
		 "PRAGMA locking_mode=EXCLUSIVE", maker->options->page_size, cache_kib);
	run(maker->db, sql);
	run(maker->db, "PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF");
}

int archive_make(const struct archive_options *options)
{
	struct maker maker;
	uint64_t size_bytes = options->messages ? options->messages * 7 / 4 * ROW_BYTES_ESTIMATE
						: options->size_bytes;
	uint64_t rows = size_bytes / ROW_BYTES_ESTIMATE, users = rows / ROWS_PER_USER;
	double gap = (double)HISTORY_SECONDS / (double)(rows * 4 / 7 + 1);

	if (access(options->db_path, F_OK) == 0)
		make_die("%s exists; remove it or use --append", options->db_path);
	maker_open(&maker, options, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE);
	rng_seed(&maker.rng, options->seed);
	bulk_pragmas(&maker, size_bytes);
	run(maker.db, schema);
	populate(&maker, users < 20 ? 20 : users > 500000 ? 500000 : (uint32_t)users);
	maker_prepare(&maker);
	run(maker.db, "BEGIN");
	make_accounts(&maker);
	maker.now = FIRST_INSTANT;
	while (options->messages ? maker.messages < options->messages : true) {
		add_message(&maker);
		maker.now += gap * 2 * rng_unit(&maker.rng);
		if (!options->messages && maker.messages % SIZE_CHECK_ROWS == 0 &&
		    (uint64_t)ask(maker.db, "PRAGMA page_count") * options->page_size >= size_bytes)
			break;
	}
	run(maker.db, "COMMIT");
	run(maker.db, "PRAGMA locking_mode=NORMAL");
	run(maker.db, options->wal ? "PRAGMA journal_mode=WAL" : "PRAGMA journal_mode=DELETE");
	report(&maker);
	maker_close(&maker);
	return 0;
}

/* Opens a store made earlier and finds its people again. */
static void maker_reopen(struct maker *maker, const struct archive_options *options)
{
	int64_t users, last_id;

	maker_open(maker, options, SQLITE_OPEN_READWRITE);
	users = ask(maker->db, "SELECT count(*) FROM prosody WHERE store='accounts' AND key='salt'");
	if (users < 2 || users > 1000000)
		make_die("%s was not made by this tool (accounts: %" PRId64 ")", options->db_path,
			 users);
	populate(maker, (uint32_t)users);
	last_id = ask(maker->db, "SELECT max(sort_id) FROM prosodyarchive");
	maker->now = (double)ask(maker->db, "SELECT \"when\" FROM prosodyarchive "
				 "ORDER BY sort_id DESC LIMIT 1");
	rng_seed(&maker->rng, rng_mix(options->seed) + (uint64_t)last_id);
	maker_prepare(maker);
}

int archive_append(const struct archive_options *options)
{
	struct maker maker;

	maker_reopen(&maker, options);
	run(maker.db, "PRAGMA synchronous=OFF; PRAGMA cache_size=-65536");
	while (maker.rows < options->messages) {
		uint64_t enough = maker.rows + options->batch_rows;

		run(maker.db, "BEGIN IMMEDIATE");
		while (maker.rows < enough && maker.rows < options->messages) {
			add_message(&maker);
			maker.now += rng_unit(&maker.rng);
		}
		run(maker.db, "COMMIT");
	}
	report(&maker);
	maker_close(&maker);
	return 0;
}

static double seconds_now(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void sleep_until(double instant, const volatile sig_atomic_t *stop)
{
	double left;

	while (!*stop && (left = instant - seconds_now(CLOCK_MONOTONIC)) > 0) {
		double nap = left > 0.2 ? 0.2 : left;
		struct timespec pause = { 0, (long)(nap * 1e9) };

		nanosleep(&pause, NULL);
	}
}

int archive_write_live(const struct archive_options *options, const volatile sig_atomic_t *stop)
{
	struct maker maker;
	double start, end;
	bool refused;

	maker_reopen(&maker, options);
	maker.live = true;
	rng_seed(&maker.rng, rng_next(&maker.rng) + (uint64_t)getpid()); /* writers must differ */
	if (options->ack_path) {
		maker.ack_fd = open(options->ack_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
		if (maker.ack_fd < 0)
			make_die("cannot open %s: %s", options->ack_path, strerror(errno));
	}
	start = seconds_now(CLOCK_MONOTONIC);
	end = options->seconds > 0 ? start + options->seconds : 0;
	while (!*stop && (end == 0 || seconds_now(CLOCK_MONOTONIC) < end)) {
		maker.now = seconds_now(CLOCK_REALTIME);
		add_message(&maker);
		if (options->rate > 0)
			sleep_until(start + (double)maker.messages / options->rate, stop);
	}
	report(&maker);
	refused = maker.refused > 0;
	maker_close(&maker);
	return refused ? 3 : 0;
}
