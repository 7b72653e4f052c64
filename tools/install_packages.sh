#!/bin/sh
# Installs the packages of the list $1 (packages.txt) that are missing. Does nothing, and needs no network, when all are there.
set -eu
cd "$(dirname "$0")/.."
missing=
for package in $(grep -v '^#' "${1:-packages.txt}"); do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing="$missing $package"
done
[ -n "$missing" ] || exit 0
echo "installing:$missing"
sudo=
[ "$(id -u)" = 0 ] || sudo=sudo
export DEBIAN_FRONTEND=noninteractive
# shellcheck disable=SC2086
$sudo apt-get update -qq && $sudo apt-get install -y -qq --no-install-recommends $missing > /dev/null
