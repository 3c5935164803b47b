# Everything that checks: tests, sanitizers, lint, coverage, fuzzing. Included by the Makefile.
# Each tests/NAME/NAME.mk adds its own rules; what it adds to PROVE (scripts as tests/run.sh takes them) and PROVE_BUILD
# (files to build first) is run by `make prove`.
PROVE :=
PROVE_BUILD :=
# Seconds that one script may take: the longest needs some ten minutes on two cores.
PROVE_LIMIT := 2400
include $(filter-out tests/unit/%,$(wildcard tests/*/*.mk))

UNIT_BINS := $(UNIT_TESTS:%=$(B)/test/%)
INTEGRATION := $(sort $(wildcard tests/integration/t_*.sh))
CLANG_B := $(B)-clang
ASAN_B := $(B)-asan
TSAN_B := $(B)-tsan

## unit: the unit tests, as they are built
.PHONY: unit
unit: all $(UNIT_BINS)
	$(Q)tests/run.sh $(B) $(UNIT_BINS)

## integration: real processes: coordinator, agents, legs, exporters, guests
.PHONY: integration
integration: all $(INTEGRATION_BINS)
	$(Q)tests/run.sh $(B) $(INTEGRATION)

## check: gcc and clang builds, unit tests under ASan/UBSan, TSan and valgrind, integration; installs what it needs
.PHONY: check
check: check-build
	$(Q)tests/run.sh $(B) $(CHECK_TESTS)

## prove: the long proofs: what the folders under tests/ hang on PROVE
.PHONY: prove
prove: all $(PROVE_BUILD)
	$(Q)DROVER_TEST_LIMIT=$(PROVE_LIMIT) tests/run.sh $(B) $(PROVE)

## test: all tests: check and prove, counted together; installs what it needs
.PHONY: test
test: check-build
	$(Q)$(MAKE) --no-print-directory all $(PROVE_BUILD)
	$(Q)DROVER_TEST_LIMIT=$(PROVE_LIMIT) tests/run.sh $(B) $(CHECK_TESTS) $(PROVE)

.PHONY: check-build
check-build:
	$(Q)deploy/deps.sh all
	$(Q)$(MAKE) --no-print-directory all $(UNIT_BINS) $(INTEGRATION_BINS)
	$(Q)$(MAKE) --no-print-directory CC=clang B=$(CLANG_B) all
	$(Q)$(MAKE) --no-print-directory SAN=address B=$(ASAN_B) all $(UNIT_TESTS:%=$(ASAN_B)/test/%)
	$(Q)$(MAKE) --no-print-directory SAN=thread B=$(TSAN_B) $(THREADED_TESTS:%=$(TSAN_B)/test/%)
CHECK_TESTS = $(CHECKS) $(UNIT_TESTS:%=$(ASAN_B)/test/%) $(THREADED_TESTS:%=$(TSAN_B)/test/%) \
	$(VALGRIND_TESTS:%=valgrind:$(B)/test/%) $(INTEGRATION)

# Checks that are scripts and know the build directory.
CHECKS := $(wildcard tests/rooms.sh tests/man.sh)
# Those with threads of ours run under TSan too; those without processes and clocks under valgrind.
THREADED_TESTS := $(filter test_tls test_relay test_stream test_leg test_disk_copy test_sink test_bus,$(UNIT_TESTS))
VALGRIND_TESTS := $(filter test_verdict test_err test_msg test_msg_limits test_msg_hostile test_migration test_admission test_session test_converge test_journal test_journal_facts test_store test_units test_conf test_cli_format,$(UNIT_TESTS))

## asan: build with AddressSanitizer and UBSan, run the unit tests
.PHONY: asan
asan:
	$(Q)$(MAKE) --no-print-directory SAN=address B=$(ASAN_B) unit

## tsan: build with ThreadSanitizer, run the tests that have threads
.PHONY: tsan
tsan:
	$(Q)$(MAKE) --no-print-directory SAN=thread B=$(TSAN_B) $(THREADED_TESTS:%=$(TSAN_B)/test/%)
	$(Q)tests/run.sh $(TSAN_B) $(THREADED_TESTS:%=$(TSAN_B)/test/%)

## valgrind: run the unit tests under memcheck
.PHONY: valgrind
valgrind: $(UNIT_BINS)
	$(Q)tests/run.sh $(B) $(VALGRIND_TESTS:%=valgrind:$(B)/test/%)

## lint: rooms, formatting, cppcheck, clang-tidy
.PHONY: lint
lint: all
	$(Q)tests/rooms.sh $(B)
	$(Q)clang-format --dry-run --Werror $$(git ls-files '*.c' '*.h')
	$(Q)cppcheck --quiet --error-exitcode=1 --inline-suppr --suppressions-list=tests/suppressions/cppcheck.txt -I. \
		--enable=warning,portability --std=c11 common proto coordinator agent
	$(Q)git ls-files 'common/*.c' 'proto/*.c' 'coordinator/*.c' 'agent/*.c' | xargs -P $$(nproc) -I{} clang-tidy --quiet {} -- \
		-std=c11 -D_GNU_SOURCE -DDROVER_VERSION='"$(VERSION)"' -I. -I$(B)/gen \
		$$(pkg-config --cflags $(sort $(foreach r,$(ROOMS),$($(r)_PKG))))

## cover: unit and integration tests with line coverage (gcovr), in build-cover
.PHONY: cover
cover:
	$(Q)$(MAKE) --no-print-directory COVER=1 B=build-cover unit integration
	$(Q)gcovr --root . --exclude tests --exclude 'build.*' build-cover

## format: lay out the sources with clang-format
.PHONY: format
format:
	$(Q)clang-format -i $$(git ls-files '*.c' '*.h')

## demo: two hosts in two pools on this machine, a live migration with disks, watched; installs what it needs
.PHONY: demo
demo:
	$(Q)deploy/deps.sh build && deploy/deps.sh run && deploy/deps.sh demo
	$(Q)$(MAKE) --no-print-directory all
	$(Q)tests/demo.sh $(B)/bin
