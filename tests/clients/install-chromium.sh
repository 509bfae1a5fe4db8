#!/bin/sh
# Makes sure of a Chromium for the browser suite. Status 0 when there is one, 1 with a line that says why not.
# Installs only as root on a machine with apt-get (Debian and the like).
set -u

for name in ${MEGATRON_CHROMIUM:-} chromium chromium-browser google-chrome; do
  if command -v "$name" >/dev/null 2>&1; then
    echo "browser suite: using $(command -v "$name")"
    exit 0
  fi
done
if ! command -v apt-get >/dev/null 2>&1; then
  echo "browser suite: no Chromium, and no apt-get to install it with: install Chromium, or set MEGATRON_CHROMIUM to its path" >&2
  exit 1
fi
if [ "$(id -u)" != 0 ]; then
  echo "browser suite: no Chromium, and only root can install it: run 'apt-get install chromium' as root, or set MEGATRON_CHROMIUM to its path" >&2
  exit 1
fi
log=$(mktemp)
trap 'rm -f "$log"' EXIT
echo "browser suite: installing Debian's chromium, about a minute"
export DEBIAN_FRONTEND=noninteractive
if { timeout 300 apt-get update && timeout 600 apt-get install --yes --no-install-recommends chromium; } >"$log" 2>&1; then
  echo "browser suite: using $(command -v chromium)"
  exit 0
fi
echo "browser suite: 'apt-get install chromium' failed, the browser suite will be skipped. Its last lines:" >&2
tail -n 5 "$log" >&2
exit 1
