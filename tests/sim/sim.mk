# The simulator: coordinator, agents and legs in one process, in virtual time. What is not named here is production's.
SIM_C := $(wildcard tests/sim/*.c)
SIM_ROOMS := coord ccore agent journal acore shell proto common
SEEDS ?= 100

# Agent and legs are separate programs, and each has a control_send().
$(B)/sim/libleg.a: $(B)/lib/libleg.a
	$(Q)mkdir -p $(dir $@) && objcopy --redefine-sym control_send=leg_control_send $< $@

$(B)/test/sim: $(call objs_of,$(SIM_C)) $(B)/sim/libleg.a $(foreach r,$(SIM_ROOMS),$(B)/lib/lib$(r).a)
	$(call say,LD,$@)
	$(Q)mkdir -p $(dir $@) && $(CC) $(LDFLAGS_ALL) -o $@ $^ $(call libs_of,leg $(SIM_ROOMS)) -lm
$(call objs_of,$(SIM_C)): EXTRA = $(call cflags_of,leg $(SIM_ROOMS))

PROVE += tests/sim/sim.sh
PROVE_BUILD += $(B)/test/sim

## sim: the simulator over seeds 1 to SEEDS=100: worlds with faults, in virtual time; says which seed breaks a promise
.PHONY: sim
sim: $(B)/test/sim
	$(Q)tests/sim/seeds.sh $(B) 1 $(SEEDS)
