#!/bin/sh
# The common part of every role's image: certificate authorities for teachers and buckets, an unprivileged user, and its only
# writable folder. Runs as root in a minimal Debian.
set -eu

# Numeric everywhere: an orchestrator needs a number to verify that it is not root.
IDENTITY=10001

apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends ca-certificates libstdc++6
apt-get clean
rm -rf /var/lib/apt/lists/*

grep -q '^distillery:' /etc/group || printf 'distillery:x:%s:\n' "$IDENTITY" >>/etc/group
grep -q '^distillery:' /etc/passwd ||
    printf 'distillery:x:%s:%s::/var/lib/distillery:/usr/sbin/nologin\n' "$IDENTITY" "$IDENTITY" >>/etc/passwd
install -d -o "$IDENTITY" -g "$IDENTITY" -m 0750 /var/lib/distillery /var/lib/distillery/checkpoints
install -d /etc/distillery /usr/local/share/doc/distillery
# dpkg's own list stays for scanners.
dpkg-query --show --showformat '${Package} ${Version} ${Architecture}\n' >/usr/local/share/doc/distillery/debian.txt
