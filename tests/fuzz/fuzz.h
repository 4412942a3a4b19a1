/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What fuzz targets share: the entry point libFuzzer calls, and a vault with keys, so that inputs
 * can be sealed and signed as an insider would and get past every MAC to the decoder behind it.
 */
#ifndef IM_TESTS_FUZZ_H
#define IM_TESTS_FUZZ_H

#include "fixture.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* One vault per process, made at the first call and removed at exit. */
struct fixture *fuzz_fixture(void);

#endif
