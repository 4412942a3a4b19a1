/* SPDX-License-Identifier: Apache-2.0 */
/* Map leaves: what is accepted covers the leaf exactly and stays within its extents. */
#include "fuzz.h"

#include "stores/sqlite/leafmap.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct leafmap_list l = { 0 };
	if (size < 3)
		return 0;
	uint32_t page_size = 512u << data[0] % 8, pages = data[1] | (data[2] & 15u) << 8;
	if (leafmap_decode(data + 3, size - 3, page_size, pages, &l, NULL) == 0) {
		uint32_t next = 0;
		for (size_t i = 0; i < l.count; i++) {
			IM_CHECK(l.runs[i].first == next);
			IM_CHECK((uint64_t)(l.runs[i].skip + l.runs[i].count) * page_size <= l.runs[i].ref.plain);
			next += l.runs[i].count;
		}
		IM_CHECK(next == pages);
	}
	leafmap_clear(&l);
	return 0;
}
