/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs a fuzz target over files and folders of inputs without libFuzzer, then over cheap mutations
 * of each (bytes changed, cut, doubled), so that `meson test` replays every corpus with any
 * compiler and sanitizer. usage: fuzz_X PATH...
 */
#include "fuzz.h"

#include "base/file.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static size_t inputs, runs;

static void run_once(const uint8_t *data, size_t len)
{
	uint8_t *copy = malloc(len ? len : 1); /* exact size, so that a sanitizer sees any read beyond it */
	if (!copy)
		abort();
	memcpy(copy, data, len);
	LLVMFuzzerTestOneInput(copy, len);
	free(copy);
	runs++;
}

static void run_mutations(struct im_buf *b)
{
	static const uint8_t values[] = { 0x00, 0x01, 0x7f, 0x80, 0xff };
	size_t step = b->len / 64 + 1;
	for (size_t i = 0; i < b->len; i += step) {
		uint8_t old = b->data[i];
		for (size_t v = 0; v < sizeof values; v++) {
			b->data[i] = values[v];
			run_once(b->data, b->len);
		}
		b->data[i] = old;
		run_once(b->data, i);
	}
}

static int run_file(const char *path, const struct stat *st, int type, struct FTW *walk)
{
	auto_buf struct im_buf b = { 0 };
	struct im_error err = { 0 };
	(void)st;
	(void)walk;
	if (type != FTW_F)
		return 0;
	if (im_file_read(path, 16 << 20, &b, &err)) {
		fprintf(stderr, "%s\n", err.text);
		return 1;
	}
	inputs++;
	run_once(b.data ? b.data : (const uint8_t *)"", b.len);
	run_mutations(&b);
	return 0;
}

int main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++)
		if (nftw(argv[i], run_file, 8, FTW_PHYS))
			return 1;
	printf("%zu inputs, %zu runs\n", inputs, runs);
	return inputs ? 0 : 1;
}
