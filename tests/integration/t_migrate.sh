#!/bin/bash
# The happy path: live migration across pools, both exporters, raw and qcow2, several disks, there and back.
. "$(dirname "$0")/../lib.sh" "$1"

there_and_back() { # EXPORTER SR_AT_B1
	drover-sim create web1 --on a1 --memory 64M --dirty 2M/s --disk xvda=64M@local --disk xvdb=32M@local \
		--disk-write 1M/s --home "$FLEET"
	within 10 vm_runs_on web1 a1
	within 10 guest_ticks web1
	status_of 0 drover migrate web1 --to b1 --storage-map local="$1" --wait --json >"$FLEET/out.json"
	[ "$(jq -r .state "$FLEET/out.json")" = done ] || fail "state $(cat "$FLEET/out.json")"
	[ "$(jq -r .authority "$FLEET/out.json")" = destination ] || fail authority
	[ "$(jq -r .votes.source "$FLEET/out.json")" = commit ] || fail "vote of source"
	[ "$(jq -r .votes.destination "$FLEET/out.json")" = commit ] || fail "vote of destination"
	[ "$(jq -r '.downtime_ms > 0' "$FLEET/out.json")" = true ] || fail "downtime"
	within 5 vm_runs_on web1 b1
	guest_ticks web1 || fail "does not tick on b1"
	within 10 verify
	status_of 0 drover migrate web1 --to a1 --storage-map "$1"=local --wait >/dev/null
	within 5 vm_runs_on web1 a1
	guest_ticks web1 || fail "does not tick on a1"
	within 10 verify
}

for exporter in nbd iscsi; do
	for sr in local qcow; do
		fleet_up --hosts a1@A,b1@B --exporter $exporter
		t "migrate__${exporter}_raw_to_${sr}__there_and_back" there_and_back $sr
		fleet_down
	done
done
exit $FAILED
