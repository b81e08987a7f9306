// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* The maps, and the walks that turn kernel objects into text. */
#include "shared.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

struct ring_map ring SEC(".maps");
struct watched_map watched SEC(".maps");
struct control_map control SEC(".maps");
struct draft_map drafts SEC(".maps");
struct python_process_map python_by_pid SEC(".maps");
struct python_exe_map python_by_exe SEC(".maps");

#define PATH_STEPS 40 /* names and mount points */
#define PATH_LIMIT 1024
#define CGROUP_STEPS 16

/* Adds one NUL-terminated kernel string; false when there is no room or nothing to read. */
static __always_inline bool append_name(struct draft *draft, const void *name)
{
	__u32 used = draft->used;
	long length;

	if (used > DRAFT_BYTES - NAME_BYTES)
		return false;
	length = bpf_probe_read_kernel_str(draft->bytes + used, NAME_BYTES, name);
	if (length <= 0)
		return false;
	draft->used = used + length;
	return true;
}

/* Where a walk up a path is. Steps are callbacks of bpf_loop(), which the verifier looks at once and not once a step. */
struct path_walk {
	struct draft *draft;
	struct dentry *dentry, *root;
	struct mount *mount;
	__u32 begin, flags;
};

static long step_path(__u32 index, struct path_walk *walk)
{
	struct draft *draft = walk->draft;
	struct dentry *dentry = walk->dentry, *parent;
	struct mount *mount = walk->mount, *above;

	if (dentry == walk->root) {
		above = BPF_CORE_READ(mount, mnt_parent);
		if (above == mount) {
			walk->flags |= SPAN_COMPLETE;
			return 1;
		}
		walk->dentry = BPF_CORE_READ(mount, mnt_mountpoint);
		walk->mount = above;
		walk->root = BPF_CORE_READ(above, mnt.mnt_root);
		return 0;
	}
	if (draft->used - walk->begin > PATH_LIMIT || !append_name(draft, BPF_CORE_READ(dentry, d_name.name)))
		return 1;
	parent = BPF_CORE_READ(dentry, d_parent);
	if (parent == dentry) {
		walk->flags |= SPAN_COMPLETE;
		return 1;
	}
	walk->dentry = parent;
	return 0;
}

/*
 * The name of a file from its leaf to the root of its mount namespace, over mount points, as d_path() would find it for a
 * reader in that namespace. bpf_d_path() itself is refused in tracepoints.
 */
__noinline int append_path(struct draft *draft, __u64 dentry_at, __u64 vfsmount_at)
{
	struct dentry *dentry = (void *)dentry_at;
	struct mount *mount;
	struct path_walk walk = { .draft = draft, .dentry = dentry, .flags = SPAN_PRESENT };

	if (!draft)
		return 0;
	walk.begin = draft->used;
	if (!dentry || !vfsmount_at)
		return 0;
	mount = (void *)(vfsmount_at - bpf_core_field_offset(struct mount, mnt));
	walk.mount = mount;
	walk.root = BPF_CORE_READ(mount, mnt.mnt_root);
	/* d_unlinked() of include/linux/dcache.h; a file that never had a name (memfd) counts as deleted in /proc too */
	if (!BPF_CORE_READ(dentry, d_hash.pprev) && dentry != walk.root)
		walk.flags |= SPAN_DELETED;
	bpf_loop(PATH_STEPS, step_path, &walk, 0);
	return PACK((draft->used - walk.begin) & 0xffff, walk.flags, 0);
}

struct cgroup_walk {
	struct draft *draft;
	struct kernfs_node *node;
	__u32 flags;
};

static long step_cgroup(__u32 index, struct cgroup_walk *walk)
{
	struct kernfs_node *node = walk->node, *parent;

	if (!node)
		return 1;
	if (bpf_core_field_exists(node->__parent))
		parent = BPF_CORE_READ(node, __parent);
	else
		parent = BPF_CORE_READ((struct kernfs_node___old *)node, parent);
	if (!parent) {
		walk->flags |= SPAN_COMPLETE;
		return 1;
	}
	walk->node = parent;
	return !append_name(walk->draft, BPF_CORE_READ(node, name));
}

/*
 * The cgroup whose memory limit binds the task: on a pure cgroup v2 host the task's own cgroup, on a host with the memory
 * controller on v1 the one in that hierarchy. What /proc/PID/cgroup shows to a reader in the initial cgroup namespace.
 */
__noinline int append_cgroup(struct draft *draft, __u64 task_at)
{
	struct task_struct *task = (void *)task_at;
	struct css_set *set;
	struct cgroup *cgroup, *unified;
	struct cgroup_subsys_state *memory = 0;
	struct cgroup_walk walk = { .draft = draft, .flags = SPAN_PRESENT };
	__u32 begin;

	if (!draft || !task)
		return 0;
	begin = draft->used;
	set = BPF_CORE_READ(task, cgroups);
	if (!set)
		return 0;
	unified = cgroup = BPF_CORE_READ(set, dfl_cgrp);
	if (bpf_core_enum_value_exists(enum cgroup_subsys_id, memory_cgrp_id)) {
		__u64 slot = bpf_core_enum_value(enum cgroup_subsys_id, memory_cgrp_id);

		bpf_probe_read_kernel(&memory, sizeof(memory),
			(void *)set + bpf_core_field_offset(struct css_set, subsys) + slot * sizeof(void *));
		if (memory) {
			struct cgroup *of_memory = 0;

			bpf_probe_read_kernel(&of_memory, sizeof(of_memory), &memory->cgroup);
			/* on the same hierarchy the controller may be off below some level: the membership is what counts */
			if (of_memory && BPF_CORE_READ(of_memory, root) != BPF_CORE_READ(unified, root))
				cgroup = of_memory;
		}
	}
	walk.node = BPF_CORE_READ(cgroup, kn);
	bpf_loop(CGROUP_STEPS, step_cgroup, &walk, 0);
	return PACK((draft->used - begin) & 0xffff, walk.flags, 0);
}

#define S_IFMT 0170000
#define S_IFSOCK 0140000
#define S_IFREG 0100000
#define S_IFCHR 0020000
#define S_IFIFO 0010000
#define MAJOR(device) ((device) >> 20)
#define DEV_NULL ((1U << 20) | 3)

static __always_inline __u32 stream_kind_of(__u32 mode, __u32 device)
{
	__u32 major = MAJOR(device);

	switch (mode & S_IFMT) {
	case S_IFREG:
		return STREAM_FILE;
	case S_IFIFO:
		return STREAM_PIPE;
	case S_IFSOCK:
		return STREAM_SOCKET;
	case S_IFCHR:
		if (device == DEV_NULL)
			return STREAM_NULL;
		/* 4 and 5 are consoles, 136..143 are pseudo terminals: Documentation/admin-guide/devices.txt */
		if (major == 4 || major == 5 || (major >= 136 && major <= 143))
			return STREAM_TERMINAL;
	}
	return STREAM_OTHER;
}

/* Where descriptor 2 points; its path where that is a regular file. */
__noinline int append_stderr(struct draft *draft, __u64 task_at)
{
	struct task_struct *task = (void *)task_at;
	struct files_struct *files;
	struct fdtable *at, table = {};
	struct file *file = 0;
	struct inode *inode;
	__u32 kind;

	if (!draft || !task)
		return 0;
	files = BPF_CORE_READ(task, files);
	if (!files)
		return 0;
	at = BPF_CORE_READ(files, fdt);
	bpf_probe_read_kernel(&table, sizeof(table), at);
	if (table.max_fds > 2)
		bpf_probe_read_kernel(&file, sizeof(file), table.fd + 2);
	if (!file)
		return PACK(0, 0, STREAM_CLOSED);
	inode = BPF_CORE_READ(file, f_inode);
	kind = stream_kind_of(BPF_CORE_READ(inode, i_mode), BPF_CORE_READ(inode, i_rdev));
	if (kind != STREAM_FILE)
		return PACK(0, 0, kind);
	return append_path(draft, (__u64)BPF_CORE_READ(file, f_path.dentry), (__u64)BPF_CORE_READ(file, f_path.mnt)) |
		PACK(0, 0, kind);
}
