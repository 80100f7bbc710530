#!/bin/sh
# gpsd, gpsfake, which plays a recorded log to it, and a D-Bus daemon: from Debian, where this runs as root; else it says
# what to install.
set -eu
PATH=$PATH:/usr/sbin
if command -v gpsd >/dev/null && command -v gpsfake >/dev/null && command -v dbus-daemon >/dev/null; then
    exit 0
fi
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo 'gpsd or dbus-daemon is not here, and only root on Debian can get them by itself: install gpsd, gpsd-clients, gpsd-tools and dbus' >&2
    exit 0
fi
echo 'Installing gpsd and dbus-daemon'
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq </dev/null
apt-get install -y -qq --no-install-recommends gpsd gpsd-clients gpsd-tools dbus </dev/null >/dev/null
