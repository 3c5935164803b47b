/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "common/conf.h"

#include <confuse.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/units.h"

enum {
	FILE_MAX_BYTES = 1 << 20, /* a larger file is not a configuration */
	SEEN_MAX = 4096,          /* values set in one file */
	RANGE_TEXT = 80,
};

/* libconfuse takes the end of the file for the end of a section or a comment. This key, put after the text, is only
 * seen at the top level if both are closed. */
#define END_KEY "END_OF_FILE"

/* One value, checked. */
struct value {
	uint64_t number; /* numbers, bool (0, 1) */
	int choice;
	const char *text;
};

/* libconfuse's callbacks get no pointer of ours: this is the file being read, for as long as cfg_parse_fp() runs. */
static struct parse {
	const struct conf_table *table;
	const char *name;
	struct err err; /* the first one */
	size_t seen_count;
	struct {
		const cfg_opt_t *opt;
		int line;
	} seen[SEEN_MAX];
} * current;

/* ---- values ---- */

/* The number as a file would have it, in the largest unit that fits evenly. */
static void format_exact(enum conf_type type, uint64_t number, char text[32])
{
	static const char sizes[] = "KMGT";
	static const struct {
		const char *name;
		uint64_t ms;
	} times[] = { { "h", 3600000 }, { "m", 60000 }, { "s", 1000 }, { "ms", 1 } };
	size_t unit = 0;
	switch (type) {
	case CONF_SIZE:
	case CONF_RATE:
		for (; unit < 4 && number >= 1024 && number % 1024 == 0; unit++)
			number /= 1024;
		snprintf(text, 32, "%" PRIu64 "%.*s%s", number, unit > 0, &sizes[unit > 0 ? unit - 1 : 0],
		         type == CONF_RATE ? "/s" : "");
		return;
	case CONF_DURATION:
		while (number % times[unit].ms != 0 || (number == 0 && unit < 2))
			unit++;
		snprintf(text, 32, "%" PRIu64 "%s", number / times[unit].ms, times[unit].name);
		return;
	case CONF_NUMBER:
	case CONF_TEXT:
	case CONF_BOOL:
	case CONF_CHOICE:
	case CONF_LIST:
		break;
	}
	snprintf(text, 32, "%" PRIu64, number);
}

static uint64_t most_of(const struct conf_key *key)
{
	uint64_t width = key->bytes == sizeof(uint32_t) ? UINT32_MAX : INT64_MAX;
	return key->max && key->max < width ? key->max : width;
}

static void format_range(const struct conf_key *key, char text[RANGE_TEXT])
{
	char least[32], most[32];
	format_exact(key->type, key->min, least);
	format_exact(key->type, most_of(key), most);
	if (key->max)
		snprintf(text, RANGE_TEXT, "%s to %s", least, most);
	else
		snprintf(text, RANGE_TEXT, "at least %s", least);
}

static void format_choices(const struct conf_choice *choices, char *text, size_t bytes)
{
	size_t length = 0;
	text[0] = '\0';
	for (const struct conf_choice *c = choices; c->name && length < bytes; c++)
		length += (size_t)snprintf(text + length, bytes - length, "%s%s", length ? ", " : "", c->name);
}

static int check_number(const struct conf_key *key, const char *text, struct value *ret, struct err *err)
{
	char range[RANGE_TEXT];
	int rc = -1;
	switch (key->type) {
	case CONF_SIZE:
		rc = units_parse_size(text, &ret->number, err);
		break;
	case CONF_RATE:
		rc = units_parse_rate(text, &ret->number, err);
		break;
	case CONF_DURATION:
		rc = units_parse_duration(text, &ret->number, err);
		break;
	case CONF_NUMBER:
		rc = units_parse_number(text, &ret->number, err);
		break;
	case CONF_TEXT:
	case CONF_BOOL:
	case CONF_CHOICE:
	case CONF_LIST:
		return err_set(err, ERR_INTERNAL, "not a number");
	}
	if (rc < 0)
		return -1;
	if (ret->number >= key->min && ret->number <= most_of(key))
		return 0;
	format_range(key, range);
	return err_set(err, ERR_CONFIG, "'%s' is out of range (allowed: %s)", text, range);
}

static int check_text(const char *text, size_t least, size_t bytes, struct value *ret, struct err *err)
{
	size_t length = strlen(text);
	if (length < least)
		return err_set(err, ERR_CONFIG, "is empty or too short (allowed: %zu to %zu bytes)", least, bytes - 1);
	if (length >= bytes)
		return err_set(err, ERR_CONFIG, "'%.40s…' is too long (allowed: at most %zu bytes)", text, bytes - 1);
	for (const char *p = text; *p; p++)
		if ((unsigned char)*p < 0x20 || *p == 0x7f)
			return err_set(err, ERR_CONFIG, "'%s' has a control character in it", text);
	ret->text = text;
	return 0;
}

static int check_bool(const char *text, struct value *ret, struct err *err)
{
	static const char *const words[] = { "false", "true", "no", "yes", "off", "on" };
	for (unsigned i = 0; i < 6; i++) {
		if (strcmp(words[i], text) == 0) {
			ret->number = i & 1;
			return 0;
		}
	}
	return err_set(err, ERR_CONFIG, "'%s' is not a switch (allowed: true, false, yes, no, on, off)", text);
}

static int check_choice(const struct conf_key *key, const char *text, struct value *ret, struct err *err)
{
	char allowed[256];
	for (const struct conf_choice *c = key->choices; c->name; c++) {
		if (strcmp(c->name, text) == 0) {
			ret->choice = c->value;
			return 0;
		}
	}
	format_choices(key->choices, allowed, sizeof(allowed));
	return err_set(err, ERR_CONFIG, "'%s' is not known (allowed: %s)", text, allowed);
}

static int check_value(const struct conf_key *key, const char *text, struct value *ret, struct err *err)
{
	switch (key->type) {
	case CONF_TEXT:
		return check_text(text, key->min, key->bytes, ret, err);
	case CONF_LIST:
		return check_text(text, key->min, key->element_bytes, ret, err);
	case CONF_BOOL:
		return check_bool(text, ret, err);
	case CONF_CHOICE:
		return check_choice(key, text, ret, err);
	case CONF_SIZE:
	case CONF_RATE:
	case CONF_DURATION:
	case CONF_NUMBER:
		break;
	}
	return check_number(key, text, ret, err);
}

static int store_element(const struct conf_key *key, const char *text, unsigned char *base, struct err *err)
{
	unsigned count;
	memcpy(&count, base + key->count_offset, sizeof(count));
	size_t room = key->bytes / key->element_bytes;
	if (count >= room)
		return err_set(err, ERR_CONFIG, "'%s': has too many values (allowed: at most %zu)", key->name, room);
	char *element = (char *)base + key->offset + count * key->element_bytes;
	snprintf(element, key->element_bytes, "%s", text);
	count++;
	memcpy(base + key->count_offset, &count, sizeof(count));
	return 0;
}

static int store(const struct conf_key *key, const char *text, unsigned char *base, struct err *err)
{
	struct value value = { 0 };
	if (check_value(key, text, &value, err) < 0)
		return err_wrap(err, "'%s'", key->name);
	const uint32_t narrow = (uint32_t)value.number;
	const bool is_on = value.number != 0;
	switch (key->type) {
	case CONF_TEXT:
		snprintf((char *)base + key->offset, key->bytes, "%s", value.text);
		return 0;
	case CONF_LIST:
		return store_element(key, value.text, base, err);
	case CONF_BOOL:
		memcpy(base + key->offset, &is_on, sizeof(is_on));
		return 0;
	case CONF_CHOICE:
		memcpy(base + key->offset, &value.choice, sizeof(value.choice));
		return 0;
	case CONF_SIZE:
	case CONF_RATE:
	case CONF_DURATION:
	case CONF_NUMBER:
		break;
	}
	if (key->bytes == sizeof(narrow))
		memcpy(base + key->offset, &narrow, sizeof(narrow));
	else
		memcpy(base + key->offset, &value.number, sizeof(value.number));
	return 0;
}

static int store_default(const struct conf_key *key, unsigned char *base, struct err *err)
{
	if (!key->fallback)
		return err_set(err, ERR_CONFIG, "'%s' must be set (%s)", key->name, key->help);
	if (key->type != CONF_LIST)
		return store(key, key->fallback, base, err);
	for (const char *at = key->fallback; *at;) {
		char element[LIMIT_TEXT];
		size_t length = strcspn(at, ",");
		snprintf(element, sizeof(element), "%.*s", (int)length, at);
		if (store(key, element, base, err) < 0)
			return -1;
		at += length;
		at += strspn(at, ", ");
	}
	return 0;
}

/* ---- what libconfuse calls ---- */

static int fail_at(int line, const char *text)
{
	if (current->err.code != ERR_NONE)
		return -1;
	return err_set(&current->err, ERR_CONFIG, "%s:%d: %s", current->name, line, text);
}

static const struct conf_key *find_key(const cfg_t *cfg, const char *name)
{
	const struct conf_section *section = cfg->title ? current->table->section : NULL;
	const struct conf_key *keys = section ? section->keys : current->table->keys;
	size_t count = section ? section->key_count : current->table->key_count;
	for (size_t i = 0; i < count; i++)
		if (strcmp(keys[i].name, name) == 0)
			return &keys[i];
	return NULL;
}

static void list_keys(const cfg_t *cfg, char *text, size_t bytes)
{
	size_t length = 0;
	for (const cfg_opt_t *opt = cfg->opts; opt->name && length < bytes; opt++)
		if (strcmp(opt->name, END_KEY) != 0)
			length +=
				(size_t)snprintf(text + length, bytes - length, "%s%s", length ? ", " : "", opt->name);
}

static void on_error(cfg_t *cfg, const char *format, va_list args)
{
	char text[LIMIT_TEXT], allowed[LIMIT_TEXT / 2] = "", more[2 * LIMIT_TEXT];
	vsnprintf(text, sizeof(text), format, args);
	if (strncmp(text, "no such option", 14) != 0) {
		fail_at(cfg->line, text);
		return;
	}
	if (strstr(text, "'" END_KEY "'")) {
		snprintf(more, sizeof(more), "section %.80s %.80s is not closed (a '}' is missing)", cfg->name,
		         cfg->title);
		fail_at(cfg->line - 1, more);
		return;
	}
	list_keys(cfg, allowed, sizeof(allowed));
	snprintf(more, sizeof(more), "unknown key%s (allowed%s%s: %s)", text + 14, cfg->title ? " in section " : "",
	         cfg->title ? cfg->name : "", allowed);
	fail_at(cfg->line, more);
}

static int see(const cfg_t *cfg, const cfg_opt_t *opt)
{
	char text[LIMIT_TEXT];
	for (size_t i = 0; i < current->seen_count; i++) {
		if (current->seen[i].opt == opt) {
			snprintf(text, sizeof(text), "'%.64s' is set already, in line %d", opt->name,
			         current->seen[i].line);
			return fail_at(cfg->line, text);
		}
	}
	if (current->seen_count == SEEN_MAX)
		return fail_at(cfg->line, "too many values");
	current->seen[current->seen_count].opt = opt;
	current->seen[current->seen_count++].line = cfg->line;
	return 0;
}

/* After each value: here the line is known. */
static int on_value(cfg_t *cfg, cfg_opt_t *opt)
{
	const struct conf_key *key = find_key(cfg, opt->name);
	struct err err = { .code = ERR_NONE };
	struct value value;
	unsigned count = cfg_opt_size(opt);
	if (!key || count == 0)
		return 0;
	if (key->type != CONF_LIST && see(cfg, opt) < 0)
		return -1;
	if (check_value(key, cfg_opt_getnstr(opt, count - 1), &value, &err) == 0)
		return 0;
	err_wrap(&err, "'%s'", key->name);
	return fail_at(cfg->line, err.text);
}

/* ---- a file ---- */

static void make_options(const struct conf_key *keys, size_t count, cfg_opt_t *options)
{
	for (size_t i = 0; i < count; i++) {
		const cfg_opt_t list = CFG_STR_LIST(NULL, NULL, CFGF_NODEFAULT);
		const cfg_opt_t one = CFG_STR(NULL, NULL, CFGF_NODEFAULT);
		options[i] = keys[i].type == CONF_LIST ? list : one;
		options[i].name = keys[i].name;
		options[i].validcb = on_value;
	}
	const cfg_opt_t end = CFG_END();
	options[count] = end; /* the array has room for it */
}

/* A cfg_t for the table, which has its own copy of everything. */
static cfg_t *make_parser(const struct conf_table *table)
{
	const struct conf_section *section = table->section;
	const cfg_opt_t end = CFG_END(), last = CFG_STR(END_KEY, NULL, CFGF_NODEFAULT);
	const cfg_opt_t opening = CFG_SEC(NULL, NULL, CFGF_MULTI | CFGF_TITLE | CFGF_NO_TITLE_DUPES);
	cfg_opt_t *options = calloc(table->key_count + 3, sizeof(*options));
	cfg_opt_t *inner = calloc(section ? section->key_count + 1 : 1, sizeof(*inner));
	cfg_t *cfg = NULL;
	if (options && inner) {
		size_t n = table->key_count;
		make_options(table->keys, n, options);
		options[n++] = last;
		if (section) {
			make_options(section->keys, section->key_count, inner);
			options[n] = opening;
			options[n].name = section->name;
			options[n++].subopts = inner;
		}
		options[n] = end;
		cfg = cfg_init(options, CFGF_NONE);
	}
	free(options);
	free(inner);
	return cfg;
}

static int fill_keys(cfg_t *cfg, const struct conf_key *keys, size_t count, unsigned char *base, struct err *err)
{
	for (size_t i = 0; i < count; i++) {
		cfg_opt_t *opt = cfg_getopt(cfg, keys[i].name);
		unsigned values = opt ? cfg_opt_size(opt) : 0;
		bool is_set = opt && (opt->flags & CFGF_MODIFIED);
		if (!is_set && store_default(&keys[i], base, err) < 0)
			return -1;
		for (unsigned j = 0; is_set && j < values; j++)
			if (store(&keys[i], cfg_opt_getnstr(opt, j), base, err) < 0)
				return -1;
	}
	return 0;
}

static int check_title(const char *title, size_t bytes, struct err *err)
{
	size_t length = strlen(title);
	size_t good = strspn(title, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-");
	if (length > 0 && good == length && length < bytes && title[0] != '.')
		return 0;
	return err_set(err, ERR_CONFIG, "'%.80s' is not a name (allowed: at most %zu letters, digits and . _ -)", title,
	               bytes - 1);
}

static int fill_sections(cfg_t *cfg, const struct conf_section *section, unsigned char *base, struct err *err)
{
	unsigned count = cfg_size(cfg, section->name);
	for (unsigned i = 0; i < count; i++) {
		cfg_t *inner = cfg_getnsec(cfg, section->name, i);
		const char *title = cfg_title(inner);
		unsigned char *element = base + section->offset + i * section->element_bytes;
		if (i >= section->max_count)
			return err_set(err, ERR_CONFIG, "section %s %s: too many (allowed: at most %u)", section->name,
			               title, section->max_count);
		if (check_title(title, section->title_bytes, err) < 0 ||
		    fill_keys(inner, section->keys, section->key_count, element, err) < 0)
			return err_wrap(err, "section %s %.80s (ends in line %d)", section->name, title, inner->line);
		snprintf((char *)element + section->title_offset, section->title_bytes, "%s", title);
	}
	memcpy(base + section->count_offset, &count, sizeof(count));
	return 0;
}

static int parse_text(cfg_t *cfg, const char *text)
{
	char *whole = NULL;
	int length = asprintf(&whole, "%s\n" END_KEY " = 1\n", text);
	FILE *file = length > 0 ? fmemopen(whole, (size_t)length, "r") : NULL;
	int rc = file ? cfg_parse_fp(cfg, file) : CFG_PARSE_ERROR;
	if (rc == CFG_SUCCESS && cfg_size(cfg, END_KEY) == 0)
		fail_at(cfg->line - 2, "a comment is not closed");
	if (file)
		fclose(file);
	if (length > 0)
		free(whole);
	return rc == CFG_SUCCESS && current->err.code == ERR_NONE ? 0 : fail_at(cfg->line, "cannot be understood");
}

int conf_load_text(const char *name, const char *text, const struct conf_table *table, void *config, struct err *err)
{
	struct parse *parse = calloc(1, sizeof(*parse));
	cfg_t *cfg = make_parser(table);
	int result = -1;
	if (!parse || !cfg) {
		err_set(err, ERR_NO_MEMORY, "%s: no memory", name);
		goto out;
	}
	parse->table = table;
	parse->name = name;
	cfg_set_error_function(cfg, on_error);
	current = parse;
	if (parse_text(cfg, text) < 0) {
		if (err)
			*err = parse->err;
		goto out;
	}
	if (fill_keys(cfg, table->keys, table->key_count, config, err) < 0 ||
	    (table->section && fill_sections(cfg, table->section, config, err) < 0)) {
		err_wrap(err, "%s", name);
		goto out;
	}
	result = 0;
out:
	if (cfg)
		cfg_free(cfg);
	current = NULL;
	free(parse);
	return result;
}

/* The whole file; *ret_text is the caller's to free. */
static int read_file(int fd, const char *path, char **ret_text, struct err *err)
{
	struct stat st;
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size > FILE_MAX_BYTES)
		return err_set(err, ERR_CONFIG, "%s: is not a file of at most %d bytes", path, FILE_MAX_BYTES);
	char *text = malloc((size_t)st.st_size + 1);
	if (!text)
		return err_set(err, ERR_NO_MEMORY, "read %s: no memory", path);
	size_t length = 0;
	ssize_t got = 1;
	while (length < (size_t)st.st_size && (got = read(fd, text + length, (size_t)st.st_size - length)) > 0)
		length += (size_t)got;
	if (got < 0) {
		free(text);
		return err_errno(err, ERR_IO, errno, "read %s", path);
	}
	text[length] = '\0';
	if (strlen(text) != length) {
		free(text);
		return err_set(err, ERR_CONFIG, "%s: is not a text file", path);
	}
	*ret_text = text;
	return 0;
}

int conf_load(const char *path, bool missing_ok, const struct conf_table *table, void *config, struct err *err)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0 && errno == ENOENT && missing_ok)
		return conf_load_text(path, "", table, config, err);
	if (fd < 0)
		return err_errno(err, errno == ENOENT ? ERR_CONFIG : ERR_IO, errno, "read %s", path);
	char *text = NULL;
	int result = read_file(fd, path, &text, err);
	close(fd);
	if (result == 0)
		result = conf_load_text(path, text, table, config, err);
	free(text);
	return result;
}

/* ---- for people ---- */

static void print_key(const struct conf_key *key, const char *indent, FILE *out)
{
	static const char *const types[] = {
		[CONF_TEXT] = "text",         [CONF_SIZE] = "size",     [CONF_RATE] = "rate",
		[CONF_DURATION] = "duration", [CONF_NUMBER] = "number", [CONF_BOOL] = "true or false",
		[CONF_CHOICE] = "one of",     [CONF_LIST] = "list",
	};
	char range[RANGE_TEXT], choices[256];
	fprintf(out, "%s%s: %s", indent, key->name, types[key->type]);
	switch (key->type) {
	case CONF_CHOICE:
		format_choices(key->choices, choices, sizeof(choices));
		fprintf(out, " %s", choices);
		break;
	case CONF_SIZE:
	case CONF_RATE:
	case CONF_DURATION:
	case CONF_NUMBER:
		format_range(key, range);
		fprintf(out, ", %s", range);
		break;
	case CONF_LIST:
		fprintf(out, " of at most %zu", key->bytes / key->element_bytes);
		break;
	case CONF_TEXT:
	case CONF_BOOL:
		break;
	}
	if (!key->fallback)
		fprintf(out, "; must be set\n");
	else if (!*key->fallback)
		fprintf(out, "; default: empty\n");
	else
		fprintf(out, "; default: %s\n", key->fallback);
	fprintf(out, "%s    %s\n", indent, key->help);
}

void conf_reference(const struct conf_table *table, FILE *out)
{
	for (size_t i = 0; i < table->key_count; i++)
		print_key(&table->keys[i], "", out);
	const struct conf_section *section = table->section;
	if (!section)
		return;
	fprintf(out, "\n%s NAME { ... }, at most %u\n    %s\n", section->name, section->max_count, section->help);
	for (size_t i = 0; i < section->key_count; i++)
		print_key(&section->keys[i], "    ", out);
}
