/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <arpa/inet.h>
#include <string.h>

#include "proto/codec_shape.h"

#define FINGERPRINT_DIGITS 64
#define MAC_BYTES 6
#define PORT_DIGITS 5

/* Bytes of the character that starts here, 0 if it is not UTF-8 (RFC 3629: no overlong forms, no surrogates). */
static size_t character_bytes(const unsigned char *s, size_t left)
{
	size_t bytes = s[0] < 0x80 ? 1 : s[0] < 0xc2 ? 0 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : s[0] < 0xf5 ? 4 : 0;
	if (bytes > left)
		return 0;
	for (size_t i = 1; i < bytes; i++)
		if ((s[i] & 0xc0) != 0x80)
			return 0;
	if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) || (s[0] == 0xf0 && s[1] < 0x90) ||
	    (s[0] == 0xf4 && s[1] > 0x8f))
		return 0;
	return bytes;
}

/* C0, DEL and C1: what a terminal may take for a command. */
static bool is_control(const unsigned char *s, size_t bytes)
{
	return (bytes == 1 && (s[0] < 0x20 || s[0] == 0x7f)) || (bytes == 2 && s[0] == 0xc2 && s[1] < 0xa0);
}

static bool is_layout(unsigned char c)
{
	return c == '\n' || c == '\r' || c == '\t';
}

const char *text_fault(const char *text, size_t bytes, bool document)
{
	const unsigned char *s = (const unsigned char *)text;
	for (size_t i = 0; i < bytes;) {
		size_t n = character_bytes(s + i, bytes - i);
		if (n == 0)
			return "not UTF-8";
		if (s[i] == '\0')
			return "a NUL inside";
		if (is_control(s + i, n) && !(document && is_layout(s[i])))
			return "a control character inside";
		i += n;
	}
	return NULL;
}

void text_repair(char *text, size_t bytes)
{
	unsigned char *s = (unsigned char *)text;
	for (size_t i = 0; i < bytes;) {
		size_t n = character_bytes(s + i, bytes - i);
		if (n == 0 || is_control(s + i, n)) {
			n = n == 0 ? 1 : n;
			memset(s + i, is_layout(s[i]) ? ' ' : '?', n);
		}
		i += n;
	}
}

static bool is_hex(char c, bool upper_too)
{
	return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (upper_too && c >= 'A' && c <= 'F');
}

static bool is_mac(const char *text)
{
	if (strlen(text) != MAC_BYTES * 3 - 1)
		return false;
	for (size_t i = 0; text[i] != '\0'; i++)
		if (i % 3 == 2 ? text[i] != ':' : !is_hex(text[i], true))
			return false;
	return true;
}

static bool is_fingerprint(const char *text)
{
	size_t n = 0;
	while (is_hex(text[n], false))
		n++;
	return n == FINGERPRINT_DIGITS && text[n] == '\0';
}

static bool is_port(const char *text)
{
	unsigned port = 0;
	size_t n = 0;
	for (; n < PORT_DIGITS && text[n] >= '0' && text[n] <= '9'; n++)
		port = port * 10 + (unsigned)(text[n] - '0');
	return text[n] == '\0' && text[0] != '0' && port >= 1 && port <= 65535;
}

static bool is_host(const char *text, size_t bytes)
{
	for (size_t i = 0; i < bytes; i++) {
		char c = text[i];
		bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
		if (!plain && (i == 0 || (c != '.' && c != '-')))
			return false;
	}
	return bytes > 0;
}

static bool is_v6(const char *text, size_t bytes)
{
	char address[INET6_ADDRSTRLEN];
	struct in6_addr ignored;
	if (bytes >= sizeof(address))
		return false;
	memcpy(address, text, bytes);
	address[bytes] = '\0';
	return inet_pton(AF_INET6, address, &ignored) == 1;
}

static bool is_endpoint(const char *text)
{
	const char *colon = strrchr(text, ':');
	if (colon == NULL || !is_port(colon + 1))
		return false;
	size_t bytes = (size_t)(colon - text);
	if (text[0] == '[')
		return bytes > 2 && text[bytes - 1] == ']' && is_v6(text + 1, bytes - 2);
	return is_host(text, bytes);
}

const char *text_form_fault(enum text_form form, const char *text)
{
	switch (form) {
	case FORM_ANY:
		return NULL;
	case FORM_MAC:
		return is_mac(text) ? NULL : "not a MAC address (aa:bb:cc:dd:ee:ff)";
	case FORM_FINGERPRINT:
		return is_fingerprint(text) ? NULL : "not a fingerprint (64 lower-case hex digits)";
	case FORM_ENDPOINT:
		return is_endpoint(text) ? NULL : "not an endpoint (host:port or [v6]:port)";
	}
	return "of an unknown form";
}
