#!/bin/sh
# libfaketime, for a process with another wall clock: from Debian, where this runs as root; else it says what to install.
set -eu
if ls /usr/lib/*/faketime/libfaketime.so.1 >/dev/null 2>&1; then
    exit 0
fi
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo 'libfaketime is not here, and only root on Debian can get it by itself: install libfaketime' >&2
    exit 0
fi
echo 'Installing libfaketime'
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq </dev/null
apt-get install -y -qq --no-install-recommends libfaketime </dev/null >/dev/null
