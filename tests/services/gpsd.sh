#!/bin/sh
# gpsd and gpsfake, which plays a recorded log to it: from Debian, where this runs as root; else it says what to install.
set -eu
PATH=$PATH:/usr/sbin
if command -v gpsd >/dev/null && command -v gpsfake >/dev/null; then
    exit 0
fi
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo 'gpsd is not here, and only root on Debian can get it by itself: install gpsd, gpsd-clients and gpsd-tools' >&2
    exit 0
fi
echo 'Installing gpsd'
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq </dev/null
apt-get install -y -qq --no-install-recommends gpsd gpsd-clients gpsd-tools </dev/null >/dev/null
