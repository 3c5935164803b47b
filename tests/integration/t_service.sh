#!/bin/bash
# The daemons as services: ready, watchdog, stopping, as systemd would be told.
. "$(dirname "$0")/../lib.sh" "$1"
NOTIFY=$1/test/notify

tells_its_manager() { # DAEMON HOME
	"$NOTIFY" "$FLEET/notify.sock" "$1" --home "$FLEET/$2" >"$FLEET/notify.out" 2>&1 || fail "$(tail -n 20 "$FLEET/notify.out")"
	rm "$FLEET/notify.sock"
}

fleet_up --hosts a1@A
drover-sim down --home "$FLEET" >/dev/null
t coordinator__watched_by_a_manager__says_ready_alive_and_stopping tells_its_manager drover-coordinator coordinator
t agent__watched_by_a_manager__says_ready_alive_and_stopping tells_its_manager drover-agent a1
exit $FAILED
