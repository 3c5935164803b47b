/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Reading the coordinator's JSON. It may be older or newer than we are: any field may be missing, null or of another
 * type, and reads as "not there" then. Paths are dotted: "vm.name".
 */
#ifndef DROVER_CLI_DOC_H
#define DROVER_CLI_DOC_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"

/* Parses one object; NULL and "" read as an empty object. *ret_doc is the caller's (json_decref). ERR_PROTOCOL if it is
 * not JSON or no object. */
int doc_parse(json_t **ret_doc, const char *json, struct err *err);
/* Makes every string in it fit for a terminal (text_clean). */
void doc_clean(json_t *doc);

/* NULL if there is none; JSON null counts as none. */
const json_t *doc_get(const json_t *doc, const char *path);
/* "" if there is none. */
const char *doc_text(const json_t *doc, const char *path);
/* `other` if there is none, or it is negative. */
uint64_t doc_number(const json_t *doc, const char *path, uint64_t other);
bool doc_true(const json_t *doc, const char *path);
/* An array, or NULL. */
const json_t *doc_list(const json_t *doc, const char *path);
/* Unix milliseconds of a time; -1 if there is none. */
int64_t doc_time(const json_t *doc, const char *path);

#endif
