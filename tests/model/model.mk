# The model of the vote protocol. Needs spin and gcc, nothing of the build.
PROVE += tests/model/model.sh

## model: the vote protocol under SPIN: every state with three faults, and each rule's mutant refuted
.PHONY: model
model:
	$(Q)tests/run.sh $(B) tests/model/model.sh
