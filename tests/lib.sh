# Shared by integration tests and the demo: a fleet in a directory of its own, assertions that name what they saw.
# Use:  . tests/lib.sh "$1"; fleet_up; ...; each test is a function run by `t name function`.
set -u
shopt -s inherit_errexit
BIN=$(cd "${1:?build directory}/bin" && pwd)
PATH=$BIN:$PATH
FLEET=
FAILED=0

fleet_dir() {
	FLEET=$(mktemp -d "${TMPDIR:-/tmp}/drover.XXXXXX")
}

# fleet_up [options of drover-sim up]
fleet_up() {
	[ -n "$FLEET" ] || fleet_dir
	drover-sim up --home "$FLEET" "$@" >"$FLEET.up" 2>&1 || {
		cat "$FLEET.up"
		echo "not ok - fleet comes up"
		exit 1
	}
	rm -f "$FLEET.up"
	export DROVER_HOME=$FLEET/coordinator
}

fleet_down() {
	[ -n "$FLEET" ] && [ -d "$FLEET" ] || return 0
	drover-sim down --home "$FLEET" >/dev/null 2>&1 || true
	# Whatever still runs under this directory is a fault of ours, but must not stay on the machine.
	pkill -KILL -f "$FLEET/" 2>/dev/null || true
	if [ "${KEEP_FLEET:-no}" = no ]; then
		rm -rf "$FLEET"
	else
		echo "# kept: $FLEET"
	fi
	FLEET=
}
trap fleet_down EXIT
trap 'exit 1' INT TERM

t() {
	local name=$1
	shift
	local message status
	# Not in an `if`: there, and in a function called from there, `set -e` does nothing.
	message=$( (
		set -eE
		trap 'echo "line $LINENO: $BASH_COMMAND" >&2' ERR
		"$@"
	) 2>&1 )
	status=$?
	if [ $status -eq 0 ]; then
		echo "ok - $name"
	else
		echo "not ok - $name"
		printf '%s\n' "$message" | sed 's/^/#   /'
		FAILED=1
		return 1
	fi
}

fail() { # on standard error: the caller may have redirected what it prints
	echo "$*" >&2
	exit 1
}

# within SECONDS COMMAND...: polls until it succeeds.
within() {
	local deadline=$(($(date +%s%N) + $1 * 1000000000))
	shift
	while ! "$@" >/dev/null 2>&1; do
		[ "$(date +%s%N)" -lt "$deadline" ] || fail "not within its time: $*"
		sleep 0.05 # the pace of polling, not a synchronisation
	done
}

# status_of N COMMAND...: fails unless the command exits with N.
status_of() {
	local want=$1 got=0
	shift
	local out
	out=$("$@" 2>&1) || got=$?
	[ "$got" -eq "$want" ] || fail "exit $got, wanted $want: $*: $out"
	printf '%s\n' "$out"
}

field() { # field ID JQ
	drover show "$1" --json | jq -r "$2"
}

state_is() { # state_is ID STATE...
	local now
	now=$(field "$1" .state)
	shift
	local want
	for want in "$@"; do [ "$now" = "$want" ] && return 0; done
	return 1
}

vm_runs_on() { # vm_runs_on VM HOST
	[ "$(drover vm list --json | jq -r --arg vm "$1" --arg host "$2" \
		'[.vms[] | select(.name == $vm and .host == $host and .state == "running")] | length')" = 1 ]
}

# Newest ledger tick of a guest over all hosts.
tick_of() {
	cat "$FLEET"/*/ledger | awk -v g="$1" '$1 == g && $2 > t {t = $2} END {print t + 0}'
}

guest_ticks() { # the guest runs: its ledger grows
	local before
	before=$(tick_of "$1")
	[ "$(tick_of "$1")" -ge "$before" ]
	local i
	for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
		[ "$(tick_of "$1")" -gt "$before" ] && return 0
		sleep 0.05
	done
	return 1
}

no_leftovers() { # but for what is kept on purpose, which has a date
	[ "$(drover leftovers --json | jq '[.leftovers[] | select(.kept_until == null)] | length')" = 0 ]
}

verify() {
	drover-sim verify --home "$FLEET"
}

submit() { # submit VM HOST [options]: prints the migration's id
	local vm=$1 to=$2 out
	shift 2
	out=$(drover migrate "$vm" --to "$to" "$@" --json) || fail "submit $vm: $out"
	printf '%s\n' "$out" | jq -r .id
}

# ---- a fleet of a1 and b1 with the guest web1 that goes to and fro
other() { [ "$1" = a1 ] && echo b1 || echo a1; }
where() { drover vm list --json | jq -r '[.vms[] | select(.name == "web1" and .state == "running") | .host] | join(" ")'; }
let_go() { :; } # for tests that stop processes: whoever stands still goes on

# Sets home, daemon and program of a PARTY of a migration from SOURCE: who is to be stopped and started again with a shim
# in its environment, and the program that it is meant for.
party_is() { # PARTY SOURCE
	case $1 in
	coordinator) home=coordinator daemon=coordinator program=drover-coordinator ;;
	source) home=$2 daemon=agent program=drover-agent ;;
	destination) home=$(other "$2") daemon=agent program=drover-agent ;;
	source-leg) home=$2 daemon=agent program=drover-leg-sim ;;
	destination-leg) home=$(other "$2") daemon=agent program=drover-leg-sim ;;
	*) fail "no party $1" ;;
	esac
}

settled() { # exactly one host has the guest, as far as the coordinator has heard of it too, and no host has more to do
	let_go
	case $(where) in a1 | b1) ;; *) return 1 ;; esac
	[ "$(drover vm list --json | jq '[.vms[] | select(.name == "web1")] | length')" = 1 ] || return 1
	[ "$(drover list --json | jq '.migrations | length')" = 0 ]
}
final() { state_is "$1" "done" failed cancelled lost; }

stop_daemon() { # HOME NAME
	local pid
	pid=$(cat "$FLEET/$1/run/$2.pid")
	kill -TERM "$pid" 2>/dev/null || return 0
	within 10 eval "let_go; ! kill -0 $pid 2>/dev/null"
}

all_is_right() (within 30 verify) 2>/dev/null
