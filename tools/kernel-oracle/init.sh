#!/bin/busybox sh
# The first and only program of the emulated machine: loads the modules, names the disks by their serial numbers, runs the script
# (/etc/script) with its output on the second serial line, says how it ended, and switches off.
/bin/busybox mkdir -p /bin /sbin /usr
/bin/busybox --install -s /bin
ln -s /bin /usr/bin
ln -s /sbin /usr/sbin
export PATH=/sbin:/bin HOME=/tmp LC_ALL=C DM_DISABLE_UDEV=1
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/disk /run/lock
stty -F /dev/ttyS1 raw 2>/dev/null
while read -r module; do
    insmod "/modules/$module" || echo "oracle: $module was not loaded" >/dev/ttyS1
done </modules/order

for disk in /sys/block/vd*; do
    [ -e "$disk/serial" ] && ln -s "/dev/${disk##*/}" "/dev/disk/$(cat "$disk/serial")"
done

cd /tmp
sh -eu /etc/script >/dev/ttyS1 2>&1 </dev/null
echo "oracle: the script ended with $?" >/dev/ttyS1
reboot -n -f
