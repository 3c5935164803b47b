# Fuzz targets: tests/fuzz/NAME.c with its rooms in link order; the seeds of fuzz_X are in tests/fuzz/seeds/X. A target is
# built twice: for libFuzzer (clang, sanitizers, objects of its own under $(B)/libfuzzer), and as a plain program that runs
# the files given to it.
FUZZERS := fuzz_msg fuzz_frame
fuzz_msg_ROOMS := proto common
fuzz_frame_ROOMS := leg proto common
FUZZERS += fuzz_conf fuzz_args fuzz_cli
fuzz_conf_ROOMS := coord journal ccore acore shell proto common
fuzz_args_ROOMS := cli shell proto common
fuzz_cli_ROOMS := cli shell proto common
FUZZERS += fuzz_store fuzz_journal
fuzz_store_ROOMS := coord ccore shell proto common
fuzz_journal_ROOMS := journal acore shell proto common
# Who is on the other end of a unix socket is played by the input.
FUZZERS += fuzz_qmp fuzz_nbd fuzz_sim
FUZZ_PEER := -Wl,--wrap=disk_connect_unix -Wl,--wrap=disk_now_ms -Wl,--wrap=disk_wait
fuzz_qmp_ROOMS := disk proto common
fuzz_qmp_LINK := $(FUZZ_PEER)
fuzz_nbd_ROOMS := disk proto common
fuzz_nbd_LINK := $(FUZZ_PEER)
fuzz_sim_ROOMS := hvsim disk proto common
fuzz_sim_LINK := $(FUZZ_PEER)

# What writes seeds: tests/fuzz/NAME.c, run with the folder to write to.
SEEDERS := gen_msg
gen_msg_ROOMS := proto common
gen_msg_SEEDS := tests/fuzz/seeds/msg

SECONDS ?= 60
FUZZ_HARDEN := -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all

define fuzz_rules
$(B)/fuzz/$(1): $(B)/obj/tests/fuzz/$(1).o $(foreach r,$($(1)_ROOMS),$(B)/lib/lib$(r).a)
	$$(call say,LD,$$@)
	$(Q)mkdir -p $$(dir $$@) && $(CC) $(LDFLAGS_ALL) $(FUZZ_LINK) $($(1)_LINK) -o $$@ $$^ $$(call libs_of,$($(1)_ROOMS)) -lm
$(B)/obj/tests/fuzz/$(1).o: EXTRA = $$(call cflags_of,$($(1)_ROOMS))
endef
$(foreach t,$(FUZZERS) $(SEEDERS),$(eval $(call fuzz_rules,$(t))))

.PHONY: fuzz-programs fuzz-build
fuzz-programs: $(FUZZERS:%=$(B)/fuzz/%)
# Where there is no clang, the seeds are run by the plain programs.
fuzz-build: fuzz-programs
	$(Q)! command -v clang >/dev/null || $(MAKE) --no-print-directory CC=clang SAN= COVER= B=$(B)/libfuzzer \
		OPT='-O1 -g -fno-omit-frame-pointer' HARDEN='$(FUZZ_HARDEN)' CFLAGS=-DDROVER_LIBFUZZER FUZZ_LINK=-fsanitize=fuzzer \
		fuzz-programs

FUZZ := $(FUZZERS:%=tests/fuzz/fuzz.sh:%)
PROVE += $(FUZZ)
PROVE_BUILD += fuzz-build

## fuzz: run every fuzz target under libFuzzer, SECONDS=60 each, two at a time (needs clang)
.PHONY: fuzz
fuzz: fuzz-build
	$(Q)FUZZ_SECONDS=$(SECONDS) tests/run.sh $(B) $(FUZZ)

.PHONY: $(FUZZERS:%=fuzz-replay-%)
$(FUZZERS:%=fuzz-replay-%): fuzz-replay-fuzz_%: $(B)/fuzz/fuzz_%
	$(Q)$< tests/fuzz/seeds/$*/*

## fuzz-replay: run every fuzz target once over its seeds, without libFuzzer
.PHONY: fuzz-replay
fuzz-replay: $(FUZZERS:%=fuzz-replay-%)

## fuzz-seeds: write the seeds of fuzz_msg anew (after a change of the format)
.PHONY: fuzz-seeds
fuzz-seeds: $(SEEDERS:%=$(B)/fuzz/%)
	$(Q)$(foreach s,$(SEEDERS),mkdir -p $($(s)_SEEDS) && $(B)/fuzz/$(s) $($(s)_SEEDS) &&) true
