# A small ext4 at FOLDER/disk in a mount namespace of its own: `unshare -m --propagation private bash disk.sh FOLDER`.
# Once standard input ends, or after 320 s, it is thawed and unmounted, whatever was done to it.
cd "$1" || exit
truncate -s 16M disk.img && mkfs.ext4 -q disk.img && mkdir disk && mount -o loop disk.img disk || exit
echo ready
read -r -t 320
fsfreeze -u disk 2>/dev/null
umount -l disk
