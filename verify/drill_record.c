/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The meta part of a recovery record, FORMAT §10.
 */
#include "verify/drill.h"

#include "base/clock.h"
#include "base/file.h"

#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char *drill_verdict(int code)
{
	switch (code) {
	case 0: return "passed";
	case IM_EMISSED: return "missed";
	case IM_EDIFFERENT: return "different";
	case IM_ECORRUPT: return "damaged";
	case IM_EPARTIAL: return "partial";
	case IM_EINTERRUPTED: return "interrupted";
	default: return "failed";
	}
}

char *drill_operator(void)
{
	const char *sudo = getenv("SUDO_USER");
	struct passwd *me = getpwuid(geteuid());
	char host[256] = "";
	gethostname(host, sizeof host - 1);
	return im_format("%s@%s", sudo && *sudo ? sudo : me ? me->pw_name : "unknown", host);
}

static void put_text(json_t *o, const char *name, const char *text)
{
	json_t *value = text && *text ? json_string(text) : NULL;
	if (text && *text)
		json_object_set_new(o, name, value ? value : json_string("(not text)"));
}

static void put_number(json_t *o, const char *name, int64_t value)
{
	if (value >= 0)
		json_object_set_new(o, name, json_integer(value));
}

static json_t *phases_of(const struct restore_result *r)
{
	json_t *all = json_array();
	for (size_t i = 0; i < r->phase_count; i++) {
		json_t *row = json_object();
		put_text(row, "name", r->phases[i].name);
		put_number(row, "ms", r->phases[i].ms);
		put_number(row, "bytes", (int64_t)r->phases[i].bytes);
		if (r->phases[i].of_threads)
			json_object_set_new(row, "of_threads", json_true());
		json_array_append_new(all, row);
	}
	return all;
}

static json_t *stores_of(const struct restore_result *r)
{
	json_t *all = json_array();
	for (size_t i = 0; i < r->store_count; i++) {
		const struct restore_store *s = &r->stores[i];
		json_t *row = json_object();
		put_text(row, "name", s->name);
		put_text(row, "type", s->type);
		put_text(row, "status", s->status);
		put_number(row, "files", (int64_t)s->files);
		put_number(row, "bytes", (int64_t)s->bytes);
		put_number(row, "log_segments", (int64_t)s->log_segments);
		put_number(row, "log_bytes", (int64_t)s->log_bytes);
		json_array_append_new(all, row);
	}
	return all;
}

bool drill_was_instant(const struct restore_result *r)
{
	return r->mode && strcmp(r->mode, "ordinary") != 0;
}

static const char *chosen_by(const struct drill_facts *f)
{
	return f->chosen ? f->chosen : !f->at || strcmp(f->at, "latest") == 0 ? "latest" : "asked";
}

json_t *drill_record_meta(const struct drill_facts *f, const struct restore_result *r)
{
	json_t *m = json_object();
	char host[256] = "";
	gethostname(host, sizeof host - 1);
	put_text(m, "kind", f->kind);
	put_number(m, "time_ms", f->began_ms);
	put_text(m, "host", host);
	put_text(m, "operator", f->operator_name);
	put_text(m, "version", IMVAULT_VERSION);
	put_text(m, "reason", f->reason);
	put_text(m, "scenario", drill_was_instant(r) ? "instant" : "full");
	put_text(m, "mode", r->mode);
	put_text(m, "snapshot", r->snapshot);
	put_number(m, "snapshot_seq", (int64_t)r->seq);
	put_text(m, "chosen", chosen_by(f));
	put_text(m, "at", f->at);
	put_number(m, "instant_reached_ms", r->instant_reached_ms);
	put_number(m, "rpo_ms", f->rpo_ms);
	put_number(m, "rpo_target_ms", f->rpo_target_ms ? f->rpo_target_ms : -1);
	put_number(m, "rto_ms", r->rto_ms ? r->rto_ms : -1);
	json_object_set_new(m, "rto_met", json_boolean(r->rto_met));
	json_object_set_new(m, "rpo_met", json_boolean(f->rpo_met));
	put_number(m, "service_ready_ms", r->service_ready_ms);
	put_number(m, "data_complete_ms", r->data_complete_ms);
	put_text(m, "service", r->exec_status < 0 ? "none" : r->exec_status == 0 ? "started" : "failed");
	put_text(m, "verdict", drill_verdict(f->code));
	put_number(m, "exit_code", im_exit_status(f->code, 0));
	put_number(m, "differences", (int64_t)f->difference_count);
	json_object_set_new(m, "phases", phases_of(r));
	json_object_set_new(m, "stores", stores_of(r));
	if (f->sizes)
		json_object_set_new(m, "sizes", forecast_sizes_json(f->sizes));
	if (f->machine)
		json_object_set_new(m, "machine", forecast_machine_json(f->machine));
	if (f->limit_cpus)
		json_object_set_new(m, "limits", json_pack("{s:i, s:i}", "cpus", (int)f->limit_cpus, "nice", f->nice));
	if (f->forecast)
		json_object_set_new(m, "forecast", json_pack("{s:I, s:I}", "p50_ms", (json_int_t)f->forecast->ready_p50_ms, "p95_ms", (json_int_t)f->forecast->ready_p95_ms));
	return m;
}
