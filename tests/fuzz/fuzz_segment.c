/* SPDX-License-Identifier: Apache-2.0 */
/* Tree segments: chunk table, pax archive, piece lists. */
#include "fuzz.h"

#include "stores/files/segment.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct files_segment *s = NULL;
	struct files_member m;
	const struct files_chunk *chunks;
	bool more = true;
	if (files_segment_open(data, size, &s, NULL))
		return 0;
	size_t count = files_segment_chunks(s, &chunks);
	while (files_segment_next(s, &m, &more, NULL) == 0 && more)
		for (size_t i = 0; m.has_body && i < m.piece_count; i++)
			IM_CHECK(m.pieces[i].chunk < count && (uint64_t)m.pieces[i].skip + m.pieces[i].len <= chunks[m.pieces[i].chunk].ref.plain &&
			    m.pieces[i].file_offset + m.pieces[i].len <= m.size_bytes);
	files_segment_close(s);
	return 0;
}
