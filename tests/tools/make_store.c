/* SPDX-License-Identifier: Apache-2.0 */
/*
 * imvault-make-store: makes realistic input for tests, the quickstart and benchmarks. One run does
 * one thing: make a Prosody archive, let it grow, write into it live, or make a tree of files.
 * Everything but the live writer is the same for the same seed.
 */
#include "make_store.h"

#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static volatile sig_atomic_t stop_asked;

static const char usage[] =
	"imvault-make-store: realistic message stores for tests and benchmarks\n"
	"\n"
	"  [--db] FILE [--size MB | --messages N] [--wal | --delete] [--page-size N]\n"
	"        makes a Prosody 0.12 archive on SQLite (default 300 MB, WAL, 4096)\n"
	"  --db FILE --append N\n"
	"        adds N archived messages (rows; a 1:1 message has two) in small transactions,\n"
	"        spread over the conversations\n"
	"  --db FILE --writer RATE [--seconds S] [--ack-file FILE] [--busy-timeout MS]\n"
	"        adds RATE messages a second (0: as fast as it goes), each row committed as\n"
	"        Prosody does; notes \"SORT_ID KEY\" in FILE after each commit; stops on SIGTERM;\n"
	"        exit 3 if SQLite refused a row\n"
	"  --uploads DIR [--upload-mb N]\n"
	"        a tree of incompressible uploads (default 50 MB) and a folder of oddities\n"
	"  --small-files DIR [--count N]\n"
	"        N small files (default 1000)\n"
	"  --seed N        another store of the same kind\n"
	"  --text FILE     message bodies from FILE's lines instead of made-up text\n";

void make_die(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	fprintf(stderr, "imvault-make-store: ");
	vfprintf(stderr, format, args);
	fprintf(stderr, "\n");
	va_end(args);
	exit(1);
}

void *make_alloc(size_t bytes)
{
	void *memory = calloc(1, bytes ? bytes : 1);

	if (!memory)
		make_die("no memory for %zu bytes", bytes);
	return memory;
}

static void str_reserve(struct str *str, size_t more)
{
	if (str->length + more + 1 <= str->size)
		return;
	str->size = (str->length + more + 1) * 2;
	str->data = realloc(str->data, str->size);
	if (!str->data)
		make_die("no memory for %zu bytes", str->size);
}

void str_add(struct str *str, const char *text, size_t length)
{
	str_reserve(str, length);
	if (length)
		memcpy(str->data + str->length, text, length);
	str->length += length;
	str->data[str->length] = '\0';
}

void str_puts(struct str *str, const char *text)
{
	str_add(str, text, strlen(text));
}

void str_printf(struct str *str, const char *format, ...)
{
	va_list args;
	int length;

	str_reserve(str, 512);
	va_start(args, format);
	length = vsnprintf(str->data + str->length, 512, format, args);
	va_end(args);
	if (length < 0 || length >= 512)
		make_die("a stanza's part is too long");
	str->length += (size_t)length;
}

void str_add_escaped(struct str *str, const char *text, size_t length)
{
	for (size_t i = 0; i < length; i++) {
		switch (text[i]) {
		case '&': str_puts(str, "&amp;"); break;
		case '<': str_puts(str, "&lt;"); break;
		case '>': str_puts(str, "&gt;"); break;
		case '\'': str_puts(str, "&apos;"); break;
		case '"': str_puts(str, "&quot;"); break;
		default: str_add(str, text + i, 1);
		}
	}
}

static void on_stop(int signal_number)
{
	(void)signal_number;
	stop_asked = 1;
}

static double number(const char *text, double low, double high)
{
	char *end;
	double value = strtod(text, &end);

	if (end != text && *end == 'M') /* the unit of all sizes here may be spelt out */
		end++;
	if (end == text || *end || !(value >= low && value <= high))
		make_die("%s is not a number between %.0f and %.0f", text, low, high);
	return value;
}

enum {
	OPT_DB = 256, OPT_SIZE, OPT_MESSAGES, OPT_SEED, OPT_WAL, OPT_DELETE, OPT_PAGE_SIZE, OPT_APPEND,
	OPT_WRITER, OPT_SECONDS, OPT_ACK, OPT_BUSY, OPT_UPLOADS, OPT_UPLOAD_MB, OPT_SMALL, OPT_COUNT,
	OPT_TEXT, OPT_HELP,
};

static const struct option long_options[] = {
	{ "db", required_argument, NULL, OPT_DB },
	{ "size", required_argument, NULL, OPT_SIZE },
	{ "messages", required_argument, NULL, OPT_MESSAGES },
	{ "seed", required_argument, NULL, OPT_SEED },
	{ "wal", no_argument, NULL, OPT_WAL },
	{ "delete", no_argument, NULL, OPT_DELETE },
	{ "page-size", required_argument, NULL, OPT_PAGE_SIZE },
	{ "append", required_argument, NULL, OPT_APPEND },
	{ "writer", required_argument, NULL, OPT_WRITER },
	{ "seconds", required_argument, NULL, OPT_SECONDS },
	{ "ack-file", required_argument, NULL, OPT_ACK },
	{ "busy-timeout", required_argument, NULL, OPT_BUSY },
	{ "uploads", required_argument, NULL, OPT_UPLOADS },
	{ "upload-mb", required_argument, NULL, OPT_UPLOAD_MB },
	{ "small-files", required_argument, NULL, OPT_SMALL },
	{ "count", required_argument, NULL, OPT_COUNT },
	{ "text", required_argument, NULL, OPT_TEXT },
	{ "help", no_argument, NULL, OPT_HELP },
	{ NULL, 0, NULL, 0 },
};

enum what { NOTHING, APPEND, WRITER, UPLOADS, SMALL_FILES };

struct request {
	enum what what;
	struct archive_options archive;
	const char *folder;
	uint64_t upload_bytes, file_count;
};

static void set_what(struct request *request, enum what what)
{
	if (request->what != NOTHING)
		make_die("one thing at a time, see --help");
	request->what = what;
}

static void take_option(struct request *request, int option)
{
	struct archive_options *archive = &request->archive;

	switch (option) {
	case OPT_DB: archive->db_path = optarg; break;
	case OPT_SIZE: archive->size_bytes = (uint64_t)(number(optarg, 1, 1e6) * 1e6); break;
	case OPT_MESSAGES: archive->messages = (uint64_t)number(optarg, 1, 1e9); break;
	case OPT_SEED: archive->seed = (uint64_t)number(optarg, 0, 1e15); break;
	case OPT_WAL: archive->wal = true; break;
	case OPT_DELETE: archive->wal = false; break;
	case OPT_PAGE_SIZE: archive->page_size = (uint32_t)number(optarg, 512, 65536); break;
	case OPT_APPEND:
		set_what(request, APPEND);
		archive->messages = (uint64_t)number(optarg, 1, 1e9);
		archive->busy_ms = 10000;
		break;
	case OPT_WRITER:
		set_what(request, WRITER);
		archive->rate = number(optarg, 0, 1e6);
		break;
	case OPT_SECONDS: archive->seconds = number(optarg, 0, 1e6); break;
	case OPT_ACK: archive->ack_path = optarg; break;
	case OPT_BUSY: archive->busy_ms = (uint32_t)number(optarg, 0, 1e6); break;
	case OPT_UPLOADS: request->folder = optarg; set_what(request, UPLOADS); break;
	case OPT_UPLOAD_MB: request->upload_bytes = (uint64_t)(number(optarg, 0, 1e6) * 1e6); break;
	case OPT_SMALL: request->folder = optarg; set_what(request, SMALL_FILES); break;
	case OPT_COUNT: request->file_count = (uint64_t)number(optarg, 0, 1e8); break;
	case OPT_TEXT: archive->corpus_path = optarg; break;
	case OPT_HELP: fputs(usage, stdout); exit(0);
	default: exit(2);
	}
}

int main(int argc, char **argv)
{
	struct request request = {
		.archive = { .seed = 1, .size_bytes = 300000000, .page_size = 4096, .batch_rows = 50,
			     .wal = true },
		.upload_bytes = 50000000,
		.file_count = 1000,
	};
	struct sigaction on_signal = { .sa_handler = on_stop };
	int option;

	while ((option = getopt_long(argc, argv, "", long_options, NULL)) != -1)
		take_option(&request, option);
	if (optind < argc && !request.archive.db_path)
		request.archive.db_path = argv[optind++];
	if (optind < argc)
		make_die("unexpected argument %s, see --help", argv[optind]);
	sigaction(SIGTERM, &on_signal, NULL);
	sigaction(SIGINT, &on_signal, NULL);
	if (request.archive.db_path == NULL && request.folder == NULL)
		make_die("nothing to do, see --help");
	if ((request.what == APPEND || request.what == WRITER) && !request.archive.db_path)
		make_die("--db is missing");
	switch (request.what) {
	case APPEND: return archive_append(&request.archive);
	case WRITER: return archive_write_live(&request.archive, &stop_asked);
	case UPLOADS:
		return files_make_uploads(request.folder, request.upload_bytes, request.archive.seed);
	case SMALL_FILES:
		return files_make_small(request.folder, request.file_count, request.archive.seed);
	default: return archive_make(&request.archive);
	}
}
