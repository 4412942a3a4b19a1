/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The vault behind the fuzz targets.
 */
#include "fuzz.h"

#include <stdlib.h>

static struct fixture fixture;
static bool started;

static void stop(void)
{
	fixture_stop(&fixture);
}

struct fixture *fuzz_fixture(void)
{
	if (!started) {
		started = true;
		fixture_start(&fixture);
		atexit(stop);
	}
	return &fixture;
}
