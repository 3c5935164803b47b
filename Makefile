# drover: see `make help`. Hand-written; one rule per kind of thing, one list per room.
# Variables: CC=gcc|clang  B=build directory  V=1 (show commands)  SAN=address|thread (sanitizers)
.DEFAULT_GOAL := all
MAKEFLAGS += -j$(shell nproc)
CC ?= gcc
ifeq ($(origin CC),default)
CC := gcc
endif
B ?= build
V ?= 0
Q := $(if $(filter 1,$(V)),,@)
say = $(if $(filter 1,$(V)),,@printf '  %-7s %s\n' '$(1)' '$(2)')
prefix ?= /usr/local
VERSION := 0.1.0

# ---- flags ----
WARN := -Wall -Wextra -Wshadow -Wconversion -Wswitch-enum -Wstrict-prototypes -Wvla -Wformat=2 -Wno-format-nonliteral -Werror
OPT ?= -O2 -g
HARDEN := -fstack-protector-strong -D_FORTIFY_SOURCE=2
ifeq ($(SAN),address)
OPT := -O1 -g -fno-omit-frame-pointer
HARDEN := -fsanitize=address,undefined -fno-sanitize-recover=all
endif
ifeq ($(SAN),thread)
OPT := -O1 -g
HARDEN := -fsanitize=thread
endif
ifeq ($(COVER),1)
OPT := -O0 -g --coverage
HARDEN :=
endif
CFLAGS_ALL = -std=c11 -D_GNU_SOURCE -DDROVER_VERSION='"$(VERSION)"' -I. -I$(B)/gen $(WARN) $(OPT) $(HARDEN) -pthread $(CFLAGS)
LDFLAGS_ALL = $(OPT) $(HARDEN) -pthread -Wl,--as-needed $(LDFLAGS)

# ---- rooms: sources, and the foreign libraries of each ----
CORE_C   := common/verdict.c $(wildcard coordinator/core/*.c agent/core/*.c)
common_C := common/err.c common/clock.c common/wall.c common/paths.c common/proc.c common/lock.c common/log.c common/units.c common/verdict.c
proto_C  := $(wildcard proto/*.c)
shell_C  := common/loop.c common/bus.c common/bus_client.c common/bus_zap.c common/keys.c common/db.c common/conf.c
ccore_C  := $(wildcard coordinator/core/*.c)
acore_C  := $(wildcard agent/core/*.c)
coord_C  := $(filter-out coordinator/main.c,$(wildcard coordinator/*.c))
cli_C    := $(filter-out coordinator/cli/main.c,$(wildcard coordinator/cli/*.c))
journal_C := agent/journal.c agent/agent_conf.c $(wildcard agent/journal_*.c)
agent_C  := $(filter-out agent/main.c $(journal_C),$(wildcard agent/*.c))
disk_C   := $(wildcard agent/disk/*.c)
leg_C    := $(filter-out agent/leg/main.c,$(wildcard agent/leg/*.c))
hvsim_C  := $(wildcard agent/hypervisor/sim*.c)
sim_C    := $(filter-out agent/sim/guest_main.c agent/sim/sim_main.c agent/sim/power_shim.c,$(wildcard agent/sim/*.c))
ROOMS := common proto shell ccore acore coord cli journal agent disk leg hvsim sim
# The driver for Xen is built against the Xen release whose development files are here.
xen_PKG_ALL := xenlight xencontrol xenguest xentoollog xenstore
HAVE_XEN := $(shell pkg-config --exists $(xen_PKG_ALL) 2>/dev/null && echo 1)
hvxen_C  := $(if $(HAVE_XEN),$(filter-out agent/hypervisor/xen_save_helper.c,$(wildcard agent/hypervisor/xen*.c)))
ROOMS += $(if $(HAVE_XEN),hvxen)

proto_PKG := libprotobuf-c libxxhash
shell_PKG := libczmq libzmq sqlite3 libconfuse
coord_PKG := jansson libsystemd uuid
cli_PKG   := jansson smartcols
journal_PKG := sqlite3 uuid
agent_PKG := libsystemd uuid
disk_PKG  := libnbd libiscsi jansson libxxhash uuid
leg_PKG   := openssl libxxhash uuid
hvsim_PKG := jansson libxxhash uuid libnbd
hvxen_PKG := $(xen_PKG_ALL) jansson libxxhash uuid
hvxen_CFLAGS := -std=gnu11 # Xen's headers demand it
sim_PKG   := jansson libxxhash uuid libnbd libconfuse sqlite3

# ---- programs: main file, rooms in link order ----
PROGRAMS := drover drover-coordinator drover-agent drover-leg-sim drover-sim drover-guest
drover_MAIN := coordinator/cli/main.c
drover_ROOMS := cli shell proto common
drover-coordinator_MAIN := coordinator/main.c
drover-coordinator_ROOMS := coord ccore shell proto common
drover-agent_MAIN := agent/main.c
drover-agent_ROOMS := agent journal acore disk shell proto common
drover-leg-sim_MAIN := agent/leg/main.c
drover-leg-sim_ROOMS := leg hvsim disk journal acore shell proto common
ifdef HAVE_XEN
PROGRAMS += drover-leg-xen drover-xen-save-helper
endif
drover-leg-xen_MAIN := agent/leg/main.c
drover-leg-xen_ROOMS := leg hvxen disk journal acore shell proto common
drover-xen-save-helper_MAIN := agent/hypervisor/xen_save_helper.c
drover-xen-save-helper_ROOMS := hvxen
drover-sim_MAIN := agent/sim/sim_main.c agent/sim/power_shim.c
drover-sim_ROOMS := sim hvsim disk journal acore shell proto common
drover-guest_MAIN := agent/sim/guest_main.c
drover-guest_ROOMS := sim hvsim disk common

# ---- unit tests: tests/unit/test_NAME.c, rooms in link order ----
include tests/unit/tests.mk

pkgs = $(sort $(foreach r,$(1),$($(r)_PKG)))
cflags_of = $(if $(call pkgs,$(1)),$(shell pkg-config --cflags $(call pkgs,$(1)))) $(foreach r,$(1),$($(r)_CFLAGS))
libs_of = $(if $(call pkgs,$(1)),$(shell pkg-config --libs $(call pkgs,$(1))))
objs_of = $(patsubst %.c,$(B)/obj/%.o,$(1))

.PHONY: all
all: $(PROGRAMS:%=$(B)/bin/%) $(B)/bin/drover-power.so
ifndef HAVE_XEN
	@echo "  NOTE    without libxen-dev: drover-leg-xen, drover-xen-save-helper and their tests are left out"
endif

# What a power cut loses in a simulated host: preloaded into its processes, and part of drover-sim.
$(B)/bin/drover-power.so: agent/sim/power_shim.c agent/sim/power.c common/err.c
	$(call say,LD,$@)
	$(Q)mkdir -p $(dir $@) && $(CC) $(CFLAGS_ALL) $(if $(SAN),-fno-sanitize=all) -fPIC -fvisibility=hidden -shared -o $@ $^ -ldl

define room_rules
$(B)/lib/lib$(1).a: $(call objs_of,$($(1)_C))
	$$(call say,AR,$$@)
	$(Q)mkdir -p $$(dir $$@) && rm -f $$@ && ar rcs $$@ $$^
$(call objs_of,$($(1)_C)): EXTRA = $$(call cflags_of,$(1))
endef
$(foreach r,$(ROOMS),$(eval $(call room_rules,$(r))))

define program_rules
$(B)/bin/$(1): $(call objs_of,$($(1)_MAIN)) $(foreach r,$($(1)_ROOMS),$(B)/lib/lib$(r).a)
	$$(call say,LD,$$@)
	$(Q)mkdir -p $$(dir $$@) && $(CC) $(LDFLAGS_ALL) -o $$@ $$^ $$(call libs_of,$($(1)_ROOMS)) -lm
$(call objs_of,$($(1)_MAIN)): EXTRA = $$(call cflags_of,$($(1)_ROOMS))
endef
$(foreach p,$(PROGRAMS),$(eval $(call program_rules,$(p))))

define unit_rules
$(B)/test/$(1): $(B)/obj/tests/unit/$(1).o $(foreach r,$($(1)_ROOMS),$(B)/lib/lib$(r).a)
	$$(call say,LD,$$@)
	$(Q)mkdir -p $$(dir $$@) && $(CC) $(LDFLAGS_ALL) -o $$@ $$^ $$(call libs_of,$($(1)_ROOMS)) -lcmocka -lm
$(B)/obj/tests/unit/$(1).o: EXTRA = $$(call cflags_of,$($(1)_ROOMS))
endef
$(foreach t,$(UNIT_TESTS),$(eval $(call unit_rules,$(t))))

# Generated code is made, never committed. It is not ours, so our warnings do not apply to it.
$(B)/gen/drover.pb-c.c: proto/drover.proto
	$(call say,PROTOC,$<)
	$(Q)mkdir -p $(B)/gen && protoc-c --c_out=$(B)/gen --proto_path=proto $<
$(B)/obj/gen/drover.pb-c.o: $(B)/gen/drover.pb-c.c
	$(call say,CC,$<)
	$(Q)mkdir -p $(dir $@) && $(CC) -std=c11 -I$(B)/gen $(OPT) $(HARDEN) -c -o $@ $<
$(call objs_of,$(wildcard proto/codec*.c)): $(B)/gen/drover.pb-c.c
$(B)/lib/libproto.a: $(B)/obj/gen/drover.pb-c.o

$(B)/obj/%.o: %.c
	$(call say,CC,$<)
	$(Q)mkdir -p $(dir $@) && $(CC) $(CFLAGS_ALL) $(EXTRA) -MMD -MP -c -o $@ $<

-include $(shell find $(B)/obj -name '*.d' 2>/dev/null)

include tests/check.mk
include deploy/install.mk

## help: this text
.PHONY: help
help:
	@echo 'drover $(VERSION): make [target] [CC=clang] [B=dir] [V=1]'
	@sed -n 's/^## \([a-z-]*\): /  \1\t/p' $(MAKEFILE_LIST) | expand -t 16

## deps: install what is needed to build, run and test, from Debian packages (says what first)
.PHONY: deps
deps:
	deploy/deps.sh all

## clean: remove the build directory
.PHONY: clean
clean:
	rm -rf $(B)
