#!/bin/bash
# A cancel that races with every write of every journal: each party of a migration is stopped at each of its writes, before and
# after it (so before and after each vote, activating, and the verdict at the coordinator), the cancel is asked for, and
# the party goes on. What `drover cancel` answered must be how it ends, and the guest runs exactly once.
#   tests/cancel/race.sh BUILD PARTY [WHEN]    PARTY: coordinator source destination source-leg destination-leg; WHEN: before
#                                              or after, else both
. "$(dirname "$0")/../lib.sh" "$1"
. "$(dirname "$0")/../chaos/crash_lib.sh"
party=${2:?party}

# Asks for the cancel while the party stands still, has it go on, and sets `code`, `answer`, and `over`: it was done before.
cancel_at_the_mark() { # KEY
	code=0
	if [ "$party" = coordinator ]; then # it answers when it goes on
		drover cancel "$1" --json >"$FLEET/answer" 2>/dev/null &
		local asking=$!
		go_on
		wait $asking || code=$?
	else
		timeout 30 drover cancel "$1" --json >"$FLEET/answer" 2>/dev/null || code=$?
		go_on
	fi
	answer=$(jq -r '.cancel // .error.code' "$FLEET/answer")
	over=$(jq -r '.error.message // "" | test("it is done")' "$FLEET/answer")
}

# The answer and the exit status, against how it ended.
agrees() { # KEY
	local state wait_code=0 want
	state=$(field "$1" .state)
	case $answer:$code in
	cancelled:0) [ "$state" = cancelled ] || fail "answered cancelled, but it is $state" ;;
	too-late:4) [ "$state" = "done" ] || fail "answered too late, but it is $state" ;;
	pending:0) ;;
	*) fail "answer $answer, exit $code: $(cat "$FLEET/answer")" ;;
	esac
	drover cancel "$1" --wait >/dev/null 2>&1 || wait_code=$?
	case $state in
	cancelled) want=0 ;;
	"done") want=4 ;;
	*) fail "it ended as $state, cause $(field "$1" .cause)" ;;
	esac
	[ "$wait_code" -eq "$want" ] || fail "cancel --wait: exit $wait_code for $state"
	echo "$answer $state" >>"$FLEET.ends"
}

# Exit 6: it is not known whether it was done, ask again; the key sees to it that it is done once.
submitted() { # TO KEY
	local tries status
	for tries in 1 2 3 4 5; do
		status=0
		drover migrate web1 --to "$1" --key "$2" --keep-source 0s --json >"$FLEET/submitted" 2>&1 || status=$?
		[ $status -eq 6 ] || return $status
	done
	echo "asked $tries times" >>"$FLEET/submitted"
	return 6
}

# One schedule. Sets `fired`: whether the party made so many writes, and `over`.
cancel_at() { # WHEN N
	local when=$1 n=$2 source to home daemon program key
	fired=no over=false
	within 30 settled
	source=$(where)
	to=$(other "$source")
	party_is "$party" "$source"
	stop_daemon "$home" $daemon
	start_with_shim $program "stop-$when" "$n"
	[ ! -e "$FLEET/mark" ] || { fired=yes; return 0; } # at a write of its own start
	key=$party-$when-$n
	# In the background: the coordinator may be stopped before it has answered.
	submitted "$to" "$key" &
	local submitting=$!
	until_mark_or_final "$key"
	if [ -e "$FLEET/mark" ]; then
		fired=yes
		cancel_at_the_mark "$key"
		wait $submitting || fail "cannot be submitted: $(cat "$FLEET/submitted")"
		within 60 final "$key"
		[ "$answer" = unknown-id ] || agrees "$key" # it was asked before the record was there
	fi
	wait
	within 30 settled
	stop_daemon "$home" $daemon # it would hand its environment on to the legs of the next schedule
	drover-sim up --home "$FLEET" >/dev/null
	within 10 guest_ticks web1
	within 30 verify || fail "$key from $source: $(verify 2>&1)"
	within 10 no_leftovers
}

every_write() { # WHEN
	local n overs=0
	: >"$FLEET.ends"
	for n in $(writes "$1"); do
		echo "write $n" >&2 # shown only if the test fails
		cancel_at "$1" "$n"
		[ $fired = yes ] || break
		if [ "$over" = true ]; then # what it writes from here on is about other things
			overs=$((overs + 1))
			[ $overs -lt 2 ] || break
		fi
	done
	[ "$n" -gt 3 ] || fail "only $n writes: the shim does not see them"
	[ "$n" -lt $((WRITES_MAX - STRIDE)) ] || fail "still not over at write $n"
	echo "$party $1: cancelled at $(wc -l <"$FLEET.ends") writes: $(sort "$FLEET.ends" | uniq -c | awk '{printf "%s%s, ended %s: %d", (NR > 1 ? "; " : ""), $2, $3, $1}')" \
		>>"$FLEET.said"
	grep -q ' cancelled$' "$FLEET.ends" || fail "none was cancelled: the cancels come to nothing"
}

fleet_up --hosts a1@A,b1@B
drover-sim create web1 --on a1 --memory 16M --dirty 1M/s --disk xvda=8M@local --disk-write 512K/s --home "$FLEET"
within 10 vm_runs_on web1 a1
for when in ${3:-before after}; do
	t "cancel_races__${party}_${when}_each_write__ends_as_answered" every_write "$when"
	[ -e "$FLEET.said" ] && sed 's/^/# /' "$FLEET.said"
	rm -f "$FLEET.said" "$FLEET.ends"
done
exit $FAILED
