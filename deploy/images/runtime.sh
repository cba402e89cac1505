#!/bin/sh
# What every role's image holds beside its binary: the authorities that teachers and buckets are trusted by, a user without
# rights, and the one folder that it may write to. Runs as root in an empty Debian.
set -eu

# Numeric everywhere: an orchestrator can only tell from a number that it is not root.
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
# dpkg's own list stays as well, where scanners look for it.
dpkg-query --show --showformat '${Package} ${Version} ${Architecture}\n' >/usr/local/share/doc/distillery/debian.txt
