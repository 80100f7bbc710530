#!/bin/sh
# What a test needs and Debian has: `debian.sh gpsd` or `debian.sh faketime`. Installed where this runs as root; else it
# says what to install.
set -eu
PATH=$PATH:/usr/sbin
case $1 in
gpsd)
    # gpsfake plays a recorded log to gpsd; the bus is ModemManager's.
    packages='gpsd gpsd-clients gpsd-tools dbus'
    is_here() { command -v gpsd && command -v gpsfake && command -v dbus-daemon; }
    ;;
faketime)
    packages='libfaketime'
    is_here() { ls /usr/lib/*/faketime/libfaketime.so.1; }
    ;;
*)
    echo "$0: gpsd or faketime" >&2
    exit 2
    ;;
esac
if is_here >/dev/null 2>&1; then
    exit 0
fi
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "$1 is not here, and only root on Debian can get it by itself: install $packages" >&2
    exit 0
fi
echo "Installing $packages"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq </dev/null
# shellcheck disable=SC2086 - one word a package
apt-get install -y -qq --no-install-recommends $packages </dev/null >/dev/null
