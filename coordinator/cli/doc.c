/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "coordinator/cli/doc.h"

#include <stdlib.h>
#include <string.h>

#include "coordinator/cli/text.h"

int doc_parse(json_t **ret_doc, const char *json, struct err *err)
{
	json_error_t why;
	json_t *doc = json && *json ? json_loads(json, 0, &why) : json_object();

	if (!doc)
		return err_set(err, ERR_PROTOCOL, "the coordinator's answer is not JSON: %.200s", why.text);
	if (!json_is_object(doc)) {
		json_decref(doc);
		return err_set(err, ERR_PROTOCOL, "the coordinator's answer is JSON, but no object");
	}
	*ret_doc = doc;
	return 0;
}

void doc_clean(json_t *doc)
{
	const char *key;
	json_t *value;
	size_t index;

	if (json_is_object(doc)) {
		json_object_foreach(doc, key, value)
		{
			doc_clean(value);
		}
	} else if (json_is_array(doc)) {
		json_array_foreach(doc, index, value)
		{
			doc_clean(value);
		}
	} else if (json_is_string(doc) && !text_is_clean(json_string_value(doc))) {
		size_t bytes = json_string_length(doc) + 1;
		char *clean = malloc(bytes);

		if (clean)
			text_clean(clean, bytes, json_string_value(doc));
		json_string_set(doc, clean ? clean : "?");
		free(clean);
	}
}

const json_t *doc_get(const json_t *doc, const char *path)
{
	char step[64];

	while (doc && *path) {
		size_t length = strcspn(path, ".");

		if (length >= sizeof(step))
			return NULL;
		memcpy(step, path, length);
		step[length] = '\0';
		doc = json_object_get(doc, step);
		path += length + (path[length] == '.');
	}
	return json_is_null(doc) ? NULL : doc;
}

const char *doc_text(const json_t *doc, const char *path)
{
	const char *text = json_string_value(doc_get(doc, path));

	return text ? text : "";
}

uint64_t doc_number(const json_t *doc, const char *path, uint64_t other)
{
	const json_t *value = doc_get(doc, path);

	if (json_is_integer(value) && json_integer_value(value) >= 0)
		return (uint64_t)json_integer_value(value);
	if (json_is_real(value) && json_real_value(value) >= 0 && json_real_value(value) < 9e18)
		return (uint64_t)json_real_value(value);
	return other;
}

bool doc_true(const json_t *doc, const char *path)
{
	const json_t *value = doc_get(doc, path);

	return json_is_true(value) || (json_is_integer(value) && json_integer_value(value) != 0);
}

const json_t *doc_list(const json_t *doc, const char *path)
{
	const json_t *value = doc_get(doc, path);

	return json_is_array(value) ? value : NULL;
}

int64_t doc_time(const json_t *doc, const char *path)
{
	int64_t wall_ms;

	return text_time(doc_text(doc, path), &wall_ms) == 0 ? wall_ms : -1;
}
