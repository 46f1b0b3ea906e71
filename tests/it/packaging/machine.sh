#!/bin/sh
# Runs the units in packaging/ under a systemd of its own, which is the first process of namespaces that end with this
# script: nothing of it is left on the machine, and nothing of the machine is changed. It needs root.
#   machine.sh DIRECTORY GROUP PROGRAM PACKAGING: of the directory `proxy.toml`, `client_id`, `client_secret`, `state` and
#   `units`, which come before those in PACKAGING; GROUP is the name of a control group to be made
# What the service writes comes out here, as does what systemd says, on standard error.
set -eu
[ "${inside-}" ] || {
  # A control group of its own, so that systemd has no other processes in its care than its own.
  mount -t cgroup2 cgroup2 /sys/fs/cgroup
  mkdir "/sys/fs/cgroup/$2"
  echo $$ >"/sys/fs/cgroup/$2/cgroup.procs"
  inside=1 exec unshare --mount --pid --cgroup --uts --ipc --fork --kill-child --mount-proc "$0" "$@"
}
directory="$1" program="$3" packaging="$4"
umount /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /usr/local/bin
mount -t tmpfs tmpfs /var/lib
mkdir -p /run/upper /run/work /run/systemd/system /var/lib/private/lucid-proxy
mount -t overlay overlay -o lowerdir=/etc,upperdir=/run/upper,workdir=/run/work /etc
mount --bind "$directory/state" /var/lib/private/lucid-proxy
chmod 700 /var/lib/private

install -m 755 "$program" /usr/local/bin/lucid-proxy
install -d /etc/lucid-proxy
install -m 644 "$directory/proxy.toml" /etc/lucid-proxy
install -m 600 "$directory/client_id" "$directory/client_secret" /etc/lucid-proxy
cp "$packaging"/lucid-proxy.service "$packaging"/lucid-proxy.socket /run/systemd/system
# Of the rest of a machine there are only the names that these units ask for.
for target in basic network-online shutdown sockets sysinit; do
  printf '[Unit]\nDefaultDependencies=no\n' >"/run/systemd/system/$target.target"
done
mkdir /run/systemd/system/lucid-proxy.service.d
cat >/run/systemd/system/lucid-proxy.service.d/test.conf <<END
[Unit]
FailureAction=exit-force
[Service]
Restart=no
StandardOutput=append:$directory/out
StandardError=append:$directory/log
END
cp -r "$directory/units/." /run/systemd/system

touch "$directory/out" "$directory/log" "$directory/console"
mount --bind "$directory/console" /dev/console
tail -n +1 -f "$directory/out" &
tail -q -n +1 -f "$directory/log" "$directory/console" >&2 &
# It hands credentials over through mounts that it makes, which must be seen in all of its namespaces.
mount --make-rshared /
# Where it thinks that it is in a container it leaves the kernel alone.
export container=test SYSTEMD_UNIT_PATH=/run/systemd/system SYSTEMD_LOG_COLOR=0
exec /lib/systemd/systemd --system --log-target=console --show-status=no
