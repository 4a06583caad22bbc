#!/bin/sh
# Installs with apt what the tests use besides Python: named packages, or those whose program is missing.
# Without root, sudo or apt it says what is missing and leaves it: those tests are then skipped on a desk and fail in CI.
set -eu

missing=""
if [ "$#" -gt 0 ]; then
	missing="$*"
else
	need() { command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ] || missing="$missing $2"; }
	need mosquitto mosquitto
	need mosquitto_pub mosquitto-clients
	need socat socat
	need wrk wrk
	need faketime faketime
	need openssl openssl
	need clang-format clang-format
	need strace strace
	need systemd-analyze systemd
	need spin spin
	need gdb gdb
	need aarch64-linux-gnu-gcc "gcc-aarch64-linux-gnu libc6-dev-arm64-cross"
fi
[ -n "$missing" ] || exit 0

run=""
if [ "$(id -u)" -ne 0 ]; then
	if command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
		run="sudo -n"
	else
		echo "not installed, and no right to install:$missing" >&2
		exit 0
	fi
fi
if ! command -v apt-get >/dev/null 2>&1; then
	echo "not installed, and this is not a Debian: $missing" >&2
	exit 0
fi
echo "installing:$missing" >&2
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# shellcheck disable=SC2086
{ $run apt-get update && $run apt-get install -y --no-install-recommends $missing; } >"$log" 2>&1 ||
	{ tail -n 20 "$log" >&2; exit 1; }
