// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * The probes again, for kernels that do not describe their types: compiled by bcc on the machine itself, against the headers
 * of its kernel. The records are those of event.h, so everything after the ring buffer is the same as for the other files of
 * this folder; each function says which file has its twin. What needs the kernel's types at load time (iterators, the walk
 * over mappings) is not here, and neither is the walk over Python frames.
 *
 * Rules that bcc asks for: no pointer of the kernel is followed, but read by get8() and its kin from an address; maps are used
 * by their methods; no function is called but inlined ones. Raw tracepoints and ring buffers: Linux 5.8 and later.
 */
#include <uapi/linux/ptrace.h>
#include <linux/version.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>
#include <linux/cgroup-defs.h>
#include <linux/cred.h>
#include <linux/dcache.h>
#include <linux/fdtable.h>
#include <linux/fs.h>
#include <linux/kernfs.h>
#include <linux/mm_types.h>
#include <linux/mount.h>
#include <linux/pid.h>
#include "event.h"

#define DRAFT_BYTES 4096
#define NAME_BYTES 256
#define PATH_STEPS 32 /* names and mount points */
#define PATH_LIMIT 1024
#define CGROUP_STEPS 16
#define THREADS_SUMMED 64
#define WATCH_LEADER_PASSED 1
#define PAGE_OF_STACK 4096U
#define FULL_FAULTS 8
#define SECOND_NS 1000000000ULL
#define PIECES 8
#define ALL_BUT_FATAL_ROUTINE(n) ((n) == SIGCHLD || (n) == SIGCONT || (n) == SIGURG || (n) == SIGWINCH)

/* its first members since 3.3: fs/mount.h, which no package of headers has */
struct mount_head {
	struct hlist_node mnt_hash;
	struct mount_head *mnt_parent;
	struct dentry *mnt_mountpoint;
	struct vfsmount mnt;
};

struct draft {
	__u32 used;
	__u32 reserved;
	__u8 bytes[DRAFT_BYTES + ARGV_BYTES];
};

enum draft_slot { DRAFT_EXEC, DRAFT_EXIT, DRAFT_SIGNAL, DRAFT_OOM, DRAFT_SLOTS };

struct scene {
	struct fault_record record;
	__u8 bytes[STACK_BYTES + PAGE_OF_STACK];
};

/* /sys/kernel/tracing/events/syscalls/sys_enter_write/format: a kernel ABI */
struct syscall_entry {
	__u64 of_all_tracepoints;
	long number;
	unsigned long args[6];
};

struct piece {
	__u64 base, length;
};

BPF_RINGBUF_OUTPUT(ring, 1024);
BPF_HASH(watched, __u32, struct watch, 65536);
BPF_F_TABLE("array", __u32, struct control, control, 1, BPF_F_MMAPABLE);
BPF_PERCPU_ARRAY(drafts, struct draft, DRAFT_SLOTS);
BPF_PERCPU_ARRAY(scenes, struct scene, 1);
BPF_TABLE("lru_hash", __u32, struct tail, tails, 256);
BPF_ARRAY(empty_tail, struct tail, 1);

/* --- reading ---------------------------------------------------------------------------------------------------------- */

static __always_inline __u64 get8(const void *at)
{
	__u64 value = 0;

	bpf_probe_read_kernel(&value, sizeof(value), at);
	return value;
}

static __always_inline __u32 get4(const void *at)
{
	__u32 value = 0;

	bpf_probe_read_kernel(&value, sizeof(value), at);
	return value;
}

static __always_inline __u32 get2(const void *at)
{
	__u16 value = 0;

	bpf_probe_read_kernel(&value, sizeof(value), at);
	return value;
}

static __always_inline void get_comm(char *to, struct task_struct *task)
{
	bpf_probe_read_kernel_str(to, COMM_BYTES, &task->comm);
}

static __always_inline void count_lost_record(void)
{
	__u32 zero = 0;
	struct control *now = control.lookup(&zero);

	if (now)
		__sync_fetch_and_add(&now->lost_records, 1);
}

static __always_inline struct draft *begin_draft(__u32 slot, __u32 header_bytes)
{
	__u32 key = slot;
	struct draft *draft = drafts.lookup(&key);

	if (draft)
		draft->used = header_bytes;
	return draft;
}

static __always_inline void emit(void *record, __u32 length)
{
	int refused = ring.ringbuf_output(record, length, 0);

	if (refused)
		count_lost_record();
}

static __always_inline void emit_draft(struct draft *draft)
{
	__u32 used = draft->used;

	if (used > DRAFT_BYTES + ARGV_BYTES)
		return;
	emit(draft->bytes, used);
}

static __always_inline void set_head(struct head *head, __u32 kind, __u32 pid)
{
	head->kind = kind;
	head->pid = pid;
	head->at_ns = bpf_ktime_get_boot_ns();
}

static __always_inline __u64 start_of(struct task_struct *task)
{
	struct task_struct *leader = (void *)get8(&task->group_leader);

	return get8(&leader->start_boottime);
}

static __always_inline struct task_struct *parent_of(struct task_struct *task)
{
	struct task_struct *parent = (void *)get8(&task->real_parent);

	return (void *)get8(&parent->group_leader);
}

static __always_inline void set_ancestors(struct ancestor *ancestors, struct task_struct *task)
{
	struct task_struct *parent = parent_of(task);
	int i;

	__builtin_memset(ancestors, 0, ANCESTORS * sizeof(*ancestors));
#pragma unroll
	for (i = 0; i < ANCESTORS; i++) {
		__u32 pid = get4(&parent->tgid);

		if (!pid)
			break;
		ancestors[i].pid = pid;
		get_comm(ancestors[i].comm, parent);
		parent = parent_of(parent);
	}
}

/* shared.bpf.c: append_name */
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

/* shared.bpf.c: append_path */
static __always_inline struct span append_path(struct draft *draft, struct dentry *dentry, struct vfsmount *vfsmount)
{
	struct span span = {};
	struct mount_head *mount, *above;
	struct dentry *root, *parent;
	__u32 begin = draft->used;
	int i;

	span.flags = SPAN_PRESENT;
	if (!dentry || !vfsmount)
		return span;
	mount = (void *)vfsmount - offsetof(struct mount_head, mnt);
	root = (void *)get8(&vfsmount->mnt_root);
	if (!get8(&dentry->d_hash.pprev) && dentry != root)
		span.flags |= SPAN_DELETED;
#pragma nounroll
	for (i = 0; i < PATH_STEPS; i++) {
		if (dentry == root) {
			above = (void *)get8(&mount->mnt_parent);
			if (above == mount) {
				span.flags |= SPAN_COMPLETE;
				break;
			}
			dentry = (void *)get8(&mount->mnt_mountpoint);
			mount = above;
			root = (void *)get8(&mount->mnt.mnt_root);
			continue;
		}
		if (draft->used - begin > PATH_LIMIT || !append_name(draft, (void *)get8(&dentry->d_name.name)))
			break;
		parent = (void *)get8(&dentry->d_parent);
		if (parent == dentry) {
			span.flags |= SPAN_COMPLETE;
			break;
		}
		dentry = parent;
	}
	span.length = draft->used - begin;
	return span;
}

/* shared.bpf.c: append_cgroup */
static __always_inline struct span append_cgroup(struct draft *draft, struct task_struct *task)
{
	struct span span = {};
	struct css_set *set = (void *)get8(&task->cgroups);
	struct cgroup *cgroup;
	struct kernfs_node *node, *parent;
	__u32 begin = draft->used;
	int i;

	if (!set)
		return span;
	span.flags = SPAN_PRESENT;
	cgroup = (void *)get8(&set->dfl_cgrp);
#ifdef CONFIG_MEMCG
	{
		struct cgroup_subsys_state *memory = (void *)get8(&set->subsys[memory_cgrp_id]);
		struct cgroup *of_memory = memory ? (void *)get8(&memory->cgroup) : 0;

		if (of_memory && get8(&of_memory->root) != get8(&cgroup->root))
			cgroup = of_memory;
	}
#endif
	node = (void *)get8(&cgroup->kn);
#pragma nounroll
	for (i = 0; i < CGROUP_STEPS; i++) {
		if (!node)
			break;
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 15, 0)
		parent = (void *)get8(&node->__parent);
#else
		parent = (void *)get8(&node->parent);
#endif
		if (!parent) {
			span.flags |= SPAN_COMPLETE;
			break;
		}
		if (!append_name(draft, (void *)get8(&node->name)))
			break;
		node = parent;
	}
	span.length = draft->used - begin;
	return span;
}

static __always_inline __u32 stream_kind_of(__u32 mode, __u32 device)
{
	__u32 major = device >> 20;

	mode &= 0170000;
	if (mode == 0100000)
		return STREAM_FILE;
	if (mode == 0010000)
		return STREAM_PIPE;
	if (mode == 0140000)
		return STREAM_SOCKET;
	if (mode == 0020000) {
		if (device == ((1U << 20) | 3))
			return STREAM_NULL;
		if (major == 4 || major == 5 || (major >= 136 && major <= 143))
			return STREAM_TERMINAL;
	}
	return STREAM_OTHER;
}

/* shared.bpf.c: append_stderr */
static __always_inline struct span append_stderr(struct draft *draft, struct task_struct *task, __u32 *kind)
{
	struct span none = {};
	struct files_struct *files = (void *)get8(&task->files);
	struct fdtable *table;
	struct file **descriptors;
	struct file *file = 0;
	struct inode *inode;

	*kind = STREAM_UNKNOWN;
	if (!files)
		return none;
	*kind = STREAM_CLOSED;
	table = (void *)get8(&files->fdt);
	descriptors = (void *)get8(&table->fd);
	if (get4(&table->max_fds) > 2)
		file = (void *)get8(descriptors + 2);
	if (!file)
		return none;
	inode = (void *)get8(&file->f_inode);
	*kind = stream_kind_of(get2(&inode->i_mode), get4(&inode->i_rdev));
	if (*kind != STREAM_FILE)
		return none;
	return append_path(draft, (void *)get8(&file->f_path.dentry), (void *)get8(&file->f_path.mnt));
}

static __always_inline struct span append_exe(struct draft *draft, struct task_struct *task)
{
	struct mm_struct *mm = (void *)get8(&task->mm);
	struct file *file = mm ? (void *)get8(&mm->exe_file) : 0;
	struct dentry *dentry = 0;
	struct vfsmount *mount = 0;

	if (file) {
		dentry = (void *)get8(&file->f_path.dentry);
		mount = (void *)get8(&file->f_path.mnt);
	}
	return append_path(draft, dentry, mount);
}

static __always_inline __u32 disposition_of(__u64 sa_handler)
{
	return sa_handler == 0 ? DISPOSITION_DEFAULT : sa_handler == 1 ? DISPOSITION_IGNORE : DISPOSITION_CAUGHT;
}

static __always_inline __s64 rss_pages(struct mm_struct *mm, int kind)
{
	__s64 pages;

	if (!mm)
		return ABSENT;
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 2, 0)
	pages = get8(&mm->rss_stat[kind].count);
#else
	pages = get8(&mm->rss_stat.count[kind]);
#endif
	return pages < 0 ? 0 : pages;
}

/* --- exec.bpf.c --------------------------------------------------------------------------------------------------------- */

static __always_inline void start_watching(__u32 pid, __u64 execed_ns)
{
	struct watch fresh = {};
	__u32 key = pid, zero = 0;
	struct control *now;

	fresh.execed_ns = execed_ns;
	if (!watched.update(&key, &fresh))
		return;
	now = control.lookup(&zero);
	if (now)
		__sync_fetch_and_add(&now->lost_watches, 1);
}

int on_fork(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *parent = (void *)ctx->args[0], *child = (void *)ctx->args[1], *above;
	__u32 pid = get4(&child->tgid), forker = get4(&parent->tgid);
	struct fork_record record = {};

	if (pid != get4(&child->pid) || !watched.lookup(&forker))
		return 0;
	start_watching(pid, 0);
	set_head(&record.head, RECORD_FORK, pid);
	record.start_ns = get8(&child->start_boottime);
	above = (void *)get8(&child->real_parent);
	record.ppid = get4(&above->tgid);
	get_comm(record.comm, child);
	emit(&record, sizeof(record));
	return 0;
}

int on_exec(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *task = (void *)ctx->args[0], *parent;
	__u32 pid = get4(&task->tgid), zero = 0, kind;
	struct control *now = control.lookup(&zero);
	struct watch *watch = watched.lookup(&pid);
	struct exec_record *record;
	struct mm_struct *mm;
	struct draft *draft;
	__u64 arg_start, arg_end, length, now_ns = bpf_ktime_get_boot_ns();

	if (watch) {
		watch->faults = watch->flags = 0;
		watch->execed_ns = now_ns;
	} else {
		if (!now || !now->discover)
			return 0;
		start_watching(pid, now_ns);
	}
	draft = begin_draft(DRAFT_EXEC, sizeof(*record));
	if (!draft)
		return 0;
	record = (void *)draft->bytes;
	set_head(&record->head, RECORD_EXEC, pid);
	record->start_ns = start_of(task);
	parent = (void *)get8(&task->real_parent);
	record->ppid = get4(&parent->tgid);
	record->uid = bpf_get_current_uid_gid();
	get_comm(record->comm, task);
	set_ancestors(record->ancestors, task);
	record->reserved = 0;
	record->argv.length = record->argv.flags = 0;
	mm = (void *)get8(&task->mm);
	arg_start = get8(&mm->arg_start);
	arg_end = get8(&mm->arg_end);
	length = arg_end > arg_start ? arg_end - arg_start : 0;
	if (length > ARGV_BYTES)
		length = ARGV_BYTES;
	if (length && !bpf_probe_read_user(draft->bytes + sizeof(*record), length, (void *)arg_start)) {
		record->argv.length = length;
		record->argv.flags = SPAN_PRESENT | (arg_end - arg_start <= ARGV_BYTES ? SPAN_COMPLETE : 0);
		draft->used += length;
	}
	record->exe = append_exe(draft, task);
	record->cgroup = append_cgroup(draft, task);
	record->stderr_path = append_stderr(draft, task, &kind);
	record->stderr_kind = kind;
	emit_draft(draft);
	return 0;
}

/* --- exit.bpf.c --------------------------------------------------------------------------------------------------------- */

static __always_inline void set_times(struct exit_record *record, struct signal_struct *group)
{
	__u64 user_ns = get8(&group->utime), system_ns = get8(&group->stime);
	__u64 head = (__u64)&group->thread_head, node = get8((void *)head);
	struct task_struct *thread;
	int i;

#pragma nounroll
	for (i = 0; i < THREADS_SUMMED; i++) {
		if (!node || node == head)
			break;
		thread = (void *)node - offsetof(struct task_struct, thread_node);
		user_ns += get8(&thread->utime);
		system_ns += get8(&thread->stime);
		node = get8((void *)node);
	}
	record->user_ns = user_ns;
	record->system_ns = system_ns;
}

static __always_inline struct pt_regs *registers_of(struct task_struct *task)
{
	return (struct pt_regs *)(get8(&task->stack) + THREAD_SIZE - TOP_OF_KERNEL_STACK_PADDING) - 1;
}

static __always_inline __u64 max_rss_of(struct task_struct *task, struct signal_struct *group)
{
	struct mm_struct *mm = (void *)get8(&task->mm);
	__u64 high_water, now;

	if (!mm)
		return get8(&group->maxrss);
	high_water = get8(&mm->hiwater_rss);
	now = rss_pages(mm, MM_ANONPAGES) + rss_pages(mm, MM_FILEPAGES) + rss_pages(mm, MM_SHMEMPAGES);
	return high_water > now ? high_water : now;
}

int on_exit(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *task = (void *)ctx->args[0], *leader, *parent;
	struct signal_struct *group;
	struct exit_record *record;
	struct pt_regs *registers;
	struct watch *watch;
	struct draft *draft;
	__u32 pid = get4(&task->tgid), kind;
	int status;

	watch = watched.lookup(&pid);
	if (!watch)
		return 0;
	if (get4(&task->pid) == pid)
		watch->flags |= WATCH_LEADER_PASSED; /* nobody else sets it */
	group = (void *)get8(&task->signal);
	if (get4(&group->live))
		return 0;
	leader = (void *)get8(&task->group_leader);
	if (!(watch->flags & WATCH_LEADER_PASSED) && !get4(&leader->exit_state))
		return 0;
	status = get4(&group->flags) & SIGNAL_GROUP_EXIT ? get4(&group->group_exit_code) : get4(&leader->exit_code);
	if (watched.delete(&pid))
		return 0;
	draft = begin_draft(DRAFT_EXIT, sizeof(*record));
	if (!draft)
		return 0;
	record = (void *)draft->bytes;
	set_head(&record->head, RECORD_EXIT, pid);
	record->start_ns = get8(&leader->start_boottime);
	record->status = status;
	parent = (void *)get8(&leader->real_parent);
	record->ppid = get4(&parent->tgid);
	record->uid = bpf_get_current_uid_gid();
	get_comm(record->comm, leader);
	record->max_rss_pages = max_rss_of(task, group);
	record->reserved = 0;
	set_times(record, group);
	registers = registers_of(task);
	record->syscall = get8(&registers->orig_ax);
	record->syscall_args[0] = get8(&registers->di);
	record->syscall_args[1] = get8(&registers->si);
	record->syscall_args[2] = get8(&registers->dx);
	record->syscall_args[3] = get8(&registers->r10);
	record->syscall_args[4] = get8(&registers->r8);
	record->syscall_args[5] = get8(&registers->r9);
	record->cgroup = append_cgroup(draft, task);
	record->stderr_path = append_stderr(draft, task, &kind);
	record->stderr_kind = kind;
	emit_draft(draft);
	return 0;
}

/* --- signal.bpf.c ------------------------------------------------------------------------------------------------------- */

static __always_inline int code_of(__u64 reason)
{
	struct kernel_siginfo *from = (void *)reason;

	/* SEND_SIG_NOINFO and SEND_SIG_PRIV are not pointers: include/linux/sched/signal.h */
	if (reason == 0)
		return SI_USER;
	if (reason == 1)
		return SI_KERNEL;
	return get4(&from->si_code);
}

static __always_inline bool tells(int signal)
{
	return signal == SIGHUP || signal == SIGINT || signal == SIGQUIT || signal == SIGTERM || signal == SIGUSR1 ||
	       signal == SIGUSR2 || signal == SIGXCPU || signal == SIGKILL || signal == SIGSEGV || signal == SIGBUS ||
	       signal == SIGFPE || signal == SIGILL || signal == SIGTRAP || signal == SIGSYS || signal == SIGABRT;
}

static __always_inline __u32 sender_flags_of(struct task_struct *sender)
{
	struct signal_struct *group = (void *)get8(&sender->signal);
	struct pid *pid = (void *)get8(&group->pids[PIDTYPE_TGID]);
	__u32 flags = 0, level = get4(&pid->level);

	if (get4(&sender->flags) & PF_EXITING)
		flags |= SENDER_EXITING;
	if (get8(&group->tty))
		flags |= SENDER_HAS_TTY;
	if (level && get4((void *)&pid->numbers + level * sizeof(struct upid)) == 1)
		flags |= SENDER_PIDNS_INIT;
	return flags;
}

int on_signal(struct bpf_raw_tracepoint_args *ctx)
{
	int signal = ctx->args[0];
	__u64 reason = ctx->args[1];
	struct task_struct *task = (void *)ctx->args[2], *leader, *sender;
	struct sighand_struct *actions;
	struct signal_record *record;
	struct draft *draft;
	__u32 pid, disposition;

	if (signal < 1 || signal > 64 || ALL_BUT_FATAL_ROUTINE(signal))
		return 0;
	pid = get4(&task->tgid);
	if (!watched.lookup(&pid))
		return 0;
	actions = (void *)get8(&task->sighand);
	disposition = disposition_of(get8((void *)&actions->action + (signal - 1) * sizeof(struct k_sigaction)));
	if (disposition == DISPOSITION_CAUGHT && !tells(signal))
		return 0;
	draft = begin_draft(DRAFT_SIGNAL, sizeof(*record));
	if (!draft)
		return 0;
	record = (void *)draft->bytes;
	set_head(&record->head, RECORD_SIGNAL, pid);
	leader = (void *)get8(&task->group_leader);
	record->start_ns = get8(&leader->start_boottime);
	get_comm(record->comm, leader);
	record->tid = get4(&task->pid);
	record->signal = signal;
	record->code = code_of(reason);
	record->group = ctx->args[3];
	record->result = ctx->args[4];
	record->disposition = disposition;
	sender = (void *)bpf_get_current_task();
	leader = (void *)get8(&sender->group_leader);
	record->sender_pid = get4(&sender->tgid);
	record->sender_tid = get4(&sender->pid);
	record->sender_start_ns = get8(&leader->start_boottime);
	get_comm(record->sender_comm, leader);
	record->sender_uid = bpf_get_current_uid_gid();
	record->sender_flags = sender_flags_of(sender);
	set_ancestors(record->sender_ancestors, sender);
	record->sender_exe = append_exe(draft, sender);
	record->sender_cgroup = append_cgroup(draft, sender);
	emit_draft(draft);
	return 0;
}

/* --- fault.bpf.c -------------------------------------------------------------------------------------------------------- */

static __always_inline bool too_often(struct watch *watch, __u32 disposition)
{
	__u64 now = bpf_ktime_get_boot_ns();

	if (disposition != DISPOSITION_CAUGHT)
		return false;
	if (watch->faults < FULL_FAULTS) {
		__sync_fetch_and_add(&watch->faults, 1);
		watch->last_fault_ns = now;
		return false;
	}
	if (now - watch->last_fault_ns < SECOND_NS)
		return true;
	watch->last_fault_ns = now;
	return false;
}

static __always_inline __u32 copy_stack(__u8 *to, __u64 sp)
{
	__u32 got = PAGE_OF_STACK - (sp & (PAGE_OF_STACK - 1));
	int i;

	if (bpf_probe_read_user(to, got, (void *)sp))
		return 0;
#pragma nounroll
	for (i = 0; i < STACK_BYTES / 4096; i++) {
		if (got > STACK_BYTES - PAGE_OF_STACK || bpf_probe_read_user(to + got, PAGE_OF_STACK, (void *)(sp + got)))
			break;
		got += PAGE_OF_STACK;
	}
	return got;
}

static __always_inline void set_registers(struct fault_record *record, struct pt_regs *from)
{
	/* System V ABI AMD64, figure 3.36: DWARF register number mapping */
	record->registers[0] = get8(&from->ax);
	record->registers[1] = get8(&from->dx);
	record->registers[2] = get8(&from->cx);
	record->registers[3] = get8(&from->bx);
	record->registers[4] = get8(&from->si);
	record->registers[5] = get8(&from->di);
	record->registers[6] = get8(&from->bp);
	record->registers[7] = get8(&from->sp);
	record->registers[8] = get8(&from->r8);
	record->registers[9] = get8(&from->r9);
	record->registers[10] = get8(&from->r10);
	record->registers[11] = get8(&from->r11);
	record->registers[12] = get8(&from->r12);
	record->registers[13] = get8(&from->r13);
	record->registers[14] = get8(&from->r14);
	record->registers[15] = get8(&from->r15);
	record->registers[16] = get8(&from->ip);
}

int on_fault(struct bpf_raw_tracepoint_args *ctx)
{
	int signal = ctx->args[0];
	__u64 reason = ctx->args[1];
	struct task_struct *task = (void *)bpf_get_current_task(), *leader;
	struct fault_record *record;
	struct watch *watch;
	struct scene *scene;
	__u32 pid = bpf_get_current_pid_tgid() >> 32, zero = 0, disposition, stack_length;

	if (signal != SIGSEGV && signal != SIGBUS && signal != SIGFPE && signal != SIGILL && signal != SIGTRAP &&
	    signal != SIGSYS && signal != SIGABRT)
		return 0;
	watch = watched.lookup(&pid);
	if (!watch)
		return 0;
	disposition = disposition_of(get8((void *)ctx->args[2]));
	if (disposition == DISPOSITION_IGNORE || too_often(watch, disposition))
		return 0;
	scene = scenes.lookup(&zero);
	if (!scene)
		return 0;
	record = &scene->record;
	set_head(&record->head, RECORD_FAULT, pid);
	leader = (void *)get8(&task->group_leader);
	record->start_ns = get8(&leader->start_boottime);
	record->tid = bpf_get_current_pid_tgid();
	record->signal = signal;
	record->disposition = disposition;
	record->syscall = ABSENT;
	record->address = 0;
	record->code = code_of(reason);
	if (reason > 1) {
		/* a user ABI: include/uapi/asm-generic/siginfo.h */
		if (signal == SIGSYS)
			record->syscall = get4((void *)reason + 24);
		else
			record->address = get8((void *)reason + 16);
	}
	get_comm(record->comm, task);
	set_registers(record, registers_of(task));
	__builtin_memset(&record->module, 0, sizeof(record->module));
	stack_length = copy_stack(scene->bytes, record->registers[7]);
	record->stack_length = stack_length;
	if (stack_length > STACK_BYTES)
		return 0;
	emit(scene, sizeof(*record) + stack_length);
	return 0;
}

/* --- oom.bpf.c ---------------------------------------------------------------------------------------------------------- */

#ifdef VICTIM_IS_A_TASK
int on_oom_victim(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *victim = (void *)ctx->args[0], *trigger = (void *)bpf_get_current_task(), *leader;
	struct mm_struct *mm = (void *)get8(&victim->mm);
	struct signal_struct *group = (void *)get8(&victim->signal);
	struct cred *cred = (void *)get8(&victim->cred);
	struct oom_record *record;
	struct draft *draft = begin_draft(DRAFT_OOM, sizeof(*record));

	if (!draft)
		return 0;
	record = (void *)draft->bytes;
	__builtin_memset(record, 0, sizeof(*record));
	set_head(&record->head, RECORD_OOM, get4(&victim->tgid));
	leader = (void *)get8(&victim->group_leader);
	record->start_ns = get8(&leader->start_boottime);
	get_comm(record->comm, leader);
	record->uid = get4(&cred->uid);
	record->anon_pages = rss_pages(mm, MM_ANONPAGES);
	record->file_pages = rss_pages(mm, MM_FILEPAGES);
	record->shmem_pages = rss_pages(mm, MM_SHMEMPAGES);
	record->total_vm_pages = record->pgtables_bytes = ABSENT;
	if (mm) {
		record->total_vm_pages = get8(&mm->total_vm);
		record->pgtables_bytes = get8(&mm->pgtables_bytes);
	}
	record->oom_score_adj = (__s16)get2(&group->oom_score_adj);
	record->trigger_pid = get4(&trigger->tgid);
	get_comm(record->trigger_comm, trigger);
	record->cgroup = append_cgroup(draft, leader);
	record->trigger_cgroup = append_cgroup(draft, trigger);
	emit_draft(draft);
	return 0;
}
#endif

/* --- words.bpf.c -------------------------------------------------------------------------------------------------------- */

static __always_inline struct tail *tail_of(__u32 pid)
{
	__u32 key = pid, zero = 0;
	struct tail *tail = tails.lookup(&key), *empty;

	if (tail)
		return tail;
	empty = empty_tail.lookup(&zero);
	if (!empty)
		return 0;
	tails.insert(&key, empty);
	return tails.lookup(&key);
}

static __always_inline void keep(struct tail *tail, __u64 from, __u64 length)
{
	__u64 at;

	if (length > WORDS_BYTES) {
		from += length - WORDS_BYTES;
		length = WORDS_BYTES;
	}
	at = tail->position & (WORDS_BYTES - 1);
	if (!length || bpf_probe_read_user(tail->bytes + at, length, (void *)from))
		return;
	if (at + length > WORDS_BYTES)
		bpf_probe_read_kernel(tail->bytes, (at + length - WORDS_BYTES) & (WORDS_BYTES - 1), tail->bytes + WORDS_BYTES);
	tail->position += length;
	tail->written_ns = bpf_ktime_get_boot_ns();
}

static __always_inline struct tail *wanted_tail(__u64 descriptor)
{
	__u32 pid = bpf_get_current_pid_tgid() >> 32;

	if ((__u32)descriptor != 1 && (__u32)descriptor != 2)
		return 0;
	return watched.lookup(&pid) ? tail_of(pid) : 0;
}

int on_write(struct syscall_entry *call)
{
	struct tail *tail = wanted_tail(call->args[0]);

	if (tail)
		keep(tail, call->args[1], call->args[2]);
	return 0;
}

int on_writev(struct syscall_entry *call)
{
	struct tail *tail = wanted_tail(call->args[0]);
	__u64 vector = call->args[1], count = call->args[2];
	struct piece piece = {};
	int i;

	if (!tail)
		return 0;
#pragma nounroll
	for (i = 0; i < PIECES; i++) {
		if (i >= count || bpf_probe_read_user(&piece, sizeof(piece), (void *)(vector + i * sizeof(piece))))
			break;
		keep(tail, piece.base, piece.length);
	}
	return 0;
}
