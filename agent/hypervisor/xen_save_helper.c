/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * drover-xen-save-helper: libxc's xc_domain_save() for libxl, as its own helper does it, with three differences: the
 * leg says after each round whether to go on, to suspend or to stop; a stream that breaks is an error and not a signal
 * that kills before the log of dirty pages is switched off; and so is SIGTERM.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <xenctrl.h>
#include <xenguest.h>

#include "agent/hypervisor/xen_wire.h"

#define EXIT_REFUSED 8 /* nothing was done, the VM was not touched */

struct helper {
	xentoollog_logger logger; /* first: libxc hands it back */
	struct xen_wire wire;
	struct xen_wire_args args;
	int policy_fd;
};

static volatile sig_atomic_t stream_fd = -1;

/* The next write fails, libxc tidies up and says so. */
static void on_term(int signal)
{
	int saved = errno;
	(void)signal;
	(void)shutdown(stream_fd, SHUT_RDWR);
	errno = saved;
}

static void vmessage(xentoollog_logger *logger, xentoollog_level level, int errnum, const char *context,
                     const char *format, va_list args)
{
	struct helper *helper = (struct helper *)logger;
	char words[1024];
	int saved = errno;
	(void)vsnprintf(words, sizeof(words), format, args);
	xen_wire_log(&helper->wire, (uint32_t)level, errnum, context, words);
	errno = saved;
}

static void destroy(xentoollog_logger *logger)
{
	(void)logger;
}

/* ---- what libxc asks ---- */
static int on_suspend(void *data)
{
	struct helper *helper = data;
	int answer = 0;
	return xen_wire_call(&helper->wire, XEN_WIRE_SUSPEND, NULL, 0, &answer) == 0 ? answer : 0;
}

static int on_log_dirty(uint32_t domid, unsigned enable, void *data)
{
	struct helper *helper = data;
	const uint32_t numbers[] = { domid, enable };
	int answer = -1;
	if ((helper->args.callbacks & 1u << XEN_WIRE_LOG_DIRTY) == 0)
		return 0;
	return xen_wire_call(&helper->wire, XEN_WIRE_LOG_DIRTY, numbers, 2, &answer) == 0 ? answer : -1;
}

static int on_policy(struct precopy_stats stats, void *data)
{
	struct helper *helper = data;
	struct xen_policy_packet packet = { .version = XEN_POLICY_VERSION,
		                            .kind = XEN_POLICY_ROUND,
		                            .round = stats.iteration - 1 };
	if (!xen_policy_asks_leg(stats.iteration, stats.dirty_count))
		return XGS_POLICY_CONTINUE_PRECOPY;
	if (xen_policy_send(helper->policy_fd, &packet) != 0 || xen_policy_receive(helper->policy_fd, &packet) != 0 ||
	    packet.kind != XEN_POLICY_NEXT)
		return XGS_POLICY_ABORT; /* the leg is gone: the VM goes on as if nothing had been */
	return packet.next == XEN_POLICY_GO_ON     ? XGS_POLICY_CONTINUE_PRECOPY
	       : packet.next == XEN_POLICY_SUSPEND ? XGS_POLICY_STOP_AND_COPY
	                                           : XGS_POLICY_ABORT;
}

/* ---- start ---- */
static int refuse(const char *why)
{
	fprintf(stderr, "drover-xen-save-helper: %s\n", why);
	return EXIT_REFUSED;
}

static int policy_fd(void)
{
	const char *text = getenv(XEN_POLICY_ENV);
	char *end;
	long fd = text != NULL && *text != '\0' ? strtol(text, &end, 10) : -1;
	return fd > 2 && fd < 1 << 20 && *end == '\0' ? (int)fd : -1;
}

static int watch_signals(int fd)
{
	struct sigaction term = { .sa_handler = on_term, .sa_flags = SA_RESTART };
	stream_fd = fd;
	sigemptyset(&term.sa_mask);
	return signal(SIGPIPE, SIG_IGN) == SIG_ERR || sigaction(SIGTERM, &term, NULL) != 0 ||
	                       sigprocmask(SIG_SETMASK, &term.sa_mask, NULL) != 0
	               ? -1
	               : 0;
}

static int save(struct helper *helper)
{
	struct save_callbacks callbacks = {
		.suspend = on_suspend, .precopy_policy = on_policy, .switch_qemu_logdirty = on_log_dirty, .data = helper
	};
	const struct xen_wire_args *args = &helper->args;
	int answer, result = -1, errnum = 0;
	xc_interface *xch = xc_interface_open(&helper->logger, &helper->logger, 0);
	if (xch == NULL)
		errnum = errno;
	else if ((result = xc_domain_save(xch, args->io_fd, args->domid, args->flags, &callbacks, XC_STREAM_PLAIN,
	                                  args->receive_fd)) != 0)
		errnum = errno;
	if (xch != NULL)
		xc_interface_close(xch);
	const uint32_t numbers[] = { (uint32_t)result, (uint32_t)errnum };
	return xen_wire_call(&helper->wire, XEN_WIRE_COMPLETE, numbers, 2, &answer) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

int main(int argc, char **argv)
{
	const struct xen_policy_packet hello = { .version = XEN_POLICY_VERSION,
		                                 .kind = XEN_POLICY_HELLO,
		                                 .pid = (int32_t)getpid() };
	struct helper helper = { .logger = { vmessage, NULL, destroy },
		                 .wire = { STDIN_FILENO, STDOUT_FILENO, false },
		                 .policy_fd = policy_fd() };
	const char *why;
	if (!xen_wire_parse(argc, argv, &helper.args, &why))
		return refuse(why);
	if (helper.policy_fd < 0)
		return refuse(XEN_POLICY_ENV " names no descriptor: no leg has started this");
	if (watch_signals(helper.args.io_fd) != 0 || xen_policy_send(helper.policy_fd, &hello) != 0)
		return refuse("the leg that had this started is gone");
	return save(&helper);
}
