/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* What the probes share: maps (defined in shared.bpf.c), drafts, and what is read from a task in more than one place. */
#ifndef AGENTSCOPE_SHARED_H
#define AGENTSCOPE_SHARED_H

#include "event.h"
#include "kernel.h"

struct ring_map {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4 << 20);
};

struct watched_map {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, struct watch);
};

struct control_map {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct control);
};

/*
 * A record under construction: too big for the BPF stack, of a length known only at the end. One a CPU and probe family,
 * because a probe of another family can run in an interrupt (a timer's signal) on top of an unfinished one.
 */
#define DRAFT_BYTES 4096
#define NAME_BYTES 256
struct draft {
	__u32 used;
	__u32 reserved;
	__u8 bytes[DRAFT_BYTES + ARGV_BYTES];
};

enum draft_slot { DRAFT_EXEC, DRAFT_EXIT, DRAFT_SIGNAL, DRAFT_FAULT, DRAFT_OOM, DRAFT_SLOTS };

struct draft_map {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, DRAFT_SLOTS);
	__type(key, __u32);
	__type(value, struct draft);
};

struct python_process_map {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, __u32);
	__type(value, struct python_process);
};

struct python_exe_map {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 256);
	__type(key, struct exe_key);
	__type(value, struct python_exe);
};

extern struct ring_map ring SEC(".maps");
extern struct watched_map watched SEC(".maps");
extern struct control_map control SEC(".maps");
extern struct draft_map drafts SEC(".maps");
extern struct python_process_map python_by_pid SEC(".maps");
extern struct python_exe_map python_by_exe SEC(".maps");

/*
 * Functions of shared.bpf.c and python.bpf.c. They are global, so that the verifier checks each once and not at every call;
 * such a function takes kernel pointers as numbers (what bpf_get_current_task() returns or BPF_CORE_READ has read, never a
 * typed pointer) and must expect a null draft.
 */
int append_path(struct draft *draft, __u64 dentry_at, __u64 vfsmount_at);
int append_cgroup(struct draft *draft, __u64 task_at);
int append_stderr(struct draft *draft, __u64 task_at);
int emit_python_frames(__u32 pid);

/* What the append functions return: what goes into a span, and what kind of stream it was. */
#define PACK(length, flags, kind) ((int)((length) | (flags) << 16 | (kind) << 24))
#define SPAN_OF(packed) ((struct span){ .length = (__u32)(packed) & 0xffff, .flags = ((__u32)(packed) >> 16) & 0xff })
#define KIND_OF(packed) (((__u32)(packed) >> 24) & 0xff)

static __always_inline struct control *the_control(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&control, &zero);
}

static __always_inline void count_lost_record(void)
{
	struct control *control_now = the_control();

	if (control_now)
		__sync_fetch_and_add(&control_now->lost_records, 1);
}

static __always_inline struct draft *begin_draft(__u32 slot, __u32 header_bytes)
{
	struct draft *draft = bpf_map_lookup_elem(&drafts, &slot);

	if (draft)
		draft->used = header_bytes;
	return draft;
}

static __always_inline void emit_draft(struct draft *draft)
{
	__u32 used = draft->used;

	if (used > sizeof(draft->bytes))
		return;
	if (bpf_ringbuf_output(&ring, draft->bytes, used, 0))
		count_lost_record();
}

static __always_inline void set_head(struct head *head, __u32 kind, __u32 pid)
{
	head->kind = kind;
	head->pid = pid;
	head->at_ns = bpf_ktime_get_boot_ns();
}

static __always_inline void set_ancestors(struct ancestor *ancestors, struct task_struct *task)
{
	struct task_struct *parent = BPF_CORE_READ(task, real_parent, group_leader);

	__builtin_memset(ancestors, 0, ANCESTORS * sizeof(*ancestors));
	for (int i = 0; i < ANCESTORS; i++) {
		__u32 pid = BPF_CORE_READ(parent, tgid);

		if (!pid)
			break;
		ancestors[i].pid = pid;
		BPF_CORE_READ_STR_INTO(&ancestors[i].comm, parent, comm);
		parent = BPF_CORE_READ(parent, real_parent, group_leader);
	}
}

/* The tid as the task itself knows it, in its own pid namespace; level tells how deep that is. */
static __always_inline __u32 namespace_id(struct pid *pid, __u32 *level)
{
	__u32 nr = 0;

	*level = BPF_CORE_READ(pid, level);
	bpf_probe_read_kernel(&nr, sizeof(nr), (void *)pid + bpf_core_field_offset(struct pid, numbers) + *level * sizeof(struct upid));
	return nr;
}

static __always_inline __u32 device_of(struct inode *inode)
{
	struct super_block *super_block = BPF_CORE_READ(inode, i_sb);
	__u32 device = 0;

	bpf_probe_read_kernel(&device, sizeof(device), &super_block->s_dev);
	return device;
}

static __always_inline __u32 disposition_of(unsigned long sa_handler)
{
	return sa_handler == 0 ? DISPOSITION_DEFAULT : sa_handler == 1 ? DISPOSITION_IGNORE : DISPOSITION_CAUGHT;
}

/* Pages of one kind. On kernels since 6.2 it lacks what each CPU has not yet handed in: up to 32 pages a CPU, or 2 a CPU squared. */
static __always_inline __s64 rss_pages(struct mm_struct *mm, int kind)
{
	struct mm_struct___old *old;
	__s64 pages;

	if (!mm)
		return ABSENT;
	old = (void *)mm;
	if (bpf_core_field_exists(old->rss_stat.count)) {
		pages = kind == MM_FILEPAGES ? BPF_CORE_READ(old, rss_stat.count[MM_FILEPAGES].counter) :
			kind == MM_ANONPAGES ? BPF_CORE_READ(old, rss_stat.count[MM_ANONPAGES].counter) :
			BPF_CORE_READ(old, rss_stat.count[MM_SHMEMPAGES].counter);
	} else {
		pages = kind == MM_FILEPAGES ? BPF_CORE_READ(mm, rss_stat[MM_FILEPAGES].count) :
			kind == MM_ANONPAGES ? BPF_CORE_READ(mm, rss_stat[MM_ANONPAGES].count) :
			BPF_CORE_READ(mm, rss_stat[MM_SHMEMPAGES].count);
	}
	return pages < 0 ? 0 : pages;
}

#endif
