#!/bin/sh
# A real systemd as PID 1 of its own namespaces, over an overlay of this machine's root: nothing on the machine changes.
#   lab.sh start UNITS_DIR [RUN_DIR]   starts it with every *.service of UNITS_DIR (agent.service is started); prints the host pid of its PID 1
#   lab.sh exec PID CMD...             runs CMD inside, for example: exec 123 systemctl restart agent.service
#   lab.sh stop PID                    powers it off and removes its cgroups
# cgroup v1 memory limits (MemoryMax=) are enforced inside; on v1 systemd reports an OOM kill as Result=signal. Needs root.
set -eu
NAME=${LAB_NAME:-zoo-systemd} # of its cgroups: two labs at once need two
CTRL="cpu cpuacct cpuset memory devices freezer blkio pids systemd unified"
case "${1:-}" in
start)
  UNITS=$(readlink -f "$2"); RUN=$(readlink -f "${3:-$(mktemp -d)}"); mkdir -p "$RUN/ov"
  for c in $CTRL; do mkdir -p /sys/fs/cgroup/$c/$NAME; done
  S=/sys/fs/cgroup/cpuset; cat $S/cpuset.cpus > $S/$NAME/cpuset.cpus; cat $S/cpuset.mems > $S/$NAME/cpuset.mems; echo 1 > $S/$NAME/cgroup.clone_children
  echo 1G > /sys/fs/cgroup/memory/$NAME/memory.limit_in_bytes
  cat > "$RUN/inside.sh" <<IN
set -eu
W=$RUN/ov; mount -t tmpfs -o size=512m tmpfs \$W; mkdir \$W/up \$W/work \$W/m; R=\$W/m
mount -t overlay overlay -o lowerdir=/,upperdir=\$W/up,workdir=\$W/work \$R
cp $UNITS/*.service \$R/etc/systemd/system/; ln -sf /dev/null \$R/etc/systemd/system/systemd-sysctl.service
printf '[Unit]\nRequires=dbus.socket systemd-journald.socket\nAfter=dbus.socket\nWants=agent.service\nDefaultDependencies=no\n' > \$R/etc/systemd/system/lab.target
mount -t proc proc \$R/proc; mount -t sysfs -o ro sysfs \$R/sys; mount -t tmpfs -o mode=755 tmpfs \$R/sys/fs/cgroup; C=\$R/sys/fs/cgroup
for c in cpu cpuacct cpuset memory devices freezer blkio pids; do mkdir \$C/\$c; mount -t cgroup -o \$c cgroup \$C/\$c; done
mkdir \$C/systemd \$C/unified; mount -t cgroup -o none,name=systemd cgroup \$C/systemd; mount -t cgroup2 cgroup2 \$C/unified
mount -t tmpfs -o mode=755 tmpfs \$R/dev; for n in null zero full random urandom tty; do touch \$R/dev/\$n; mount --bind /dev/\$n \$R/dev/\$n; done
mkdir \$R/dev/pts \$R/dev/shm; mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts \$R/dev/pts; ln -s pts/ptmx \$R/dev/ptmx; mount -t tmpfs tmpfs \$R/dev/shm; ln -s /proc/self/fd \$R/dev/fd
mount -t tmpfs -o mode=755 tmpfs \$R/run
cd \$R; mkdir -p .old; pivot_root . .old; cd /; umount -l /.old
exec env -i container=lab PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --unit=lab.target --log-target=journal --show-status=0
IN
  setsid sh -c "for c in $CTRL; do echo \$\$ > /sys/fs/cgroup/\$c/$NAME/cgroup.procs; done
    exec unshare --pid --fork --kill-child=SIGKILL --mount --cgroup --uts --ipc --propagation private sh -e $RUN/inside.sh" >"$RUN/log" 2>&1 </dev/null &
  O=$!
  for _ in $(seq 1 300); do
    for u in $(pgrep -f "unshare --pid --fork --kill-child=SIGKILL --mount --cgroup --uts --ipc --propagation private sh -e $RUN/inside.sh" || true); do
      P=$(pgrep -P "$u" -x systemd || true)
      if [ -n "$P" ] && nsenter -t "$P" -m -p -u -i -r -w -- systemctl is-active -q agent.service 2>/dev/null; then echo "$P"; exit 0; fi
    done
    sleep 0.2
  done
  kill -KILL "$O" 2>/dev/null || true # its init dies with it
  echo "lab: agent.service not active after 60 s; see $RUN/log" >&2; exit 75 ;;
exec) P=$2; shift 2; exec nsenter -t "$P" -m -p -u -i -r -w -- "$@" ;;
stop)
  kill -s RTMIN+4 "$2" 2>/dev/null || true
  for _ in $(seq 1 50); do [ -d "/proc/$2" ] || break; sleep 0.1; done
  [ -d "/proc/$2" ] && kill -KILL "$2" || true; sleep 0.3
  for c in $CTRL; do find /sys/fs/cgroup/$c/$NAME -depth -type d -exec rmdir {} \; 2>/dev/null || true; done ;;
*) sed -n 2,6p "$0" >&2; exit 64 ;;
esac
