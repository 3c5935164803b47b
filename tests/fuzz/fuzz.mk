# Fuzz targets: tests/fuzz/NAME.c with its rooms in link order, and the folder of its seeds. A target is built twice:
# for libFuzzer (clang, sanitizers, objects of its own), and as a plain program that runs the files given to it.
FUZZERS := fuzz_msg fuzz_frame
fuzz_msg_ROOMS := proto common
fuzz_msg_SEEDS := tests/fuzz/corpus/msg
fuzz_msg_FLAGS := -max_len=16384
fuzz_frame_ROOMS := leg proto common
fuzz_frame_SEEDS := tests/fuzz/corpus/frame
fuzz_frame_FLAGS := -max_len=4096

# What writes seeds: tests/fuzz/NAME.c, run with the folder to write to.
SEEDERS := gen_msg
gen_msg_ROOMS := proto common
gen_msg_SEEDS := tests/fuzz/corpus/msg

SECONDS ?= 60
FUZZ_HARDEN := -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all

define fuzz_rules
$(B)/fuzz/$(1): $(B)/obj/tests/fuzz/$(1).o $(foreach r,$($(1)_ROOMS),$(B)/lib/lib$(r).a)
	$$(call say,LD,$$@)
	$(Q)mkdir -p $$(dir $$@) && $(CC) $(LDFLAGS_ALL) $(FUZZ_LINK) -o $$@ $$^ $$(call libs_of,$($(1)_ROOMS)) -lm
$(B)/obj/tests/fuzz/$(1).o: EXTRA = $$(call cflags_of,$($(1)_ROOMS))
endef
$(foreach t,$(FUZZERS) $(SEEDERS),$(eval $(call fuzz_rules,$(t))))

# Builds one target for libFuzzer under $(B)/libfuzzer, runs it; what it finds and what is worth keeping stays in
# $(B)/libfuzzer/corpus (crash-*, timeout-* and so on beside the folders).
.PHONY: $(FUZZERS:%=fuzz-run-%)
$(FUZZERS:%=fuzz-run-%): fuzz-run-%:
	$(Q)$(MAKE) --no-print-directory CC=clang SAN= COVER= B=$(B)/libfuzzer OPT='-O1 -g -fno-omit-frame-pointer' \
		HARDEN='$(FUZZ_HARDEN)' CFLAGS=-DDROVER_LIBFUZZER FUZZ_LINK=-fsanitize=fuzzer $(B)/libfuzzer/fuzz/$*
	$(Q)mkdir -p $(B)/libfuzzer/corpus/$*
	$(Q)$(B)/libfuzzer/fuzz/$* -max_total_time=$(SECONDS) -timeout=10 -print_final_stats=1 $($*_FLAGS) \
		-artifact_prefix=$(B)/libfuzzer/corpus/ $(B)/libfuzzer/corpus/$* $($*_SEEDS)

.PHONY: $(FUZZERS:%=fuzz-replay-%)
$(FUZZERS:%=fuzz-replay-%): fuzz-replay-%: $(B)/fuzz/%
	$(Q)$< $($*_SEEDS)/*

## fuzz: run every fuzz target under libFuzzer, SECONDS=60 each (needs clang)
.PHONY: fuzz
fuzz: $(FUZZERS:%=fuzz-run-%)

## fuzz-replay: run every fuzz target once over its seeds, without libFuzzer
.PHONY: fuzz-replay
fuzz-replay: $(FUZZERS:%=fuzz-replay-%)

## fuzz-seeds: write the seeds anew (after a change of the format)
.PHONY: fuzz-seeds
fuzz-seeds: $(SEEDERS:%=$(B)/fuzz/%)
	$(Q)$(foreach s,$(SEEDERS),mkdir -p $($(s)_SEEDS) && $(B)/fuzz/$(s) $($(s)_SEEDS) &&) true
