// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * Deaths: one record a process, with the status that waitpid(2) reports.
 *
 * Three flavours, of which user space loads the first that the kernel accepts: before 6.16 sched_process_exit came after
 * exit_mm() and had no second parameter, so a program that names this parameter is refused exactly where the address space
 * is already gone; there the mappings are taken on entry to do_exit(), if such a probe can be had.
 */
#include "shared.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define WATCH_LEADER_PASSED 1 /* the leader's own exit_code is final */
#define WATCH_MAPPED 2        /* the mappings are already on their way */

#define THREADS_SUMMED 128
#define MAPPINGS_SEEN 16384
#define ROLL_BYTES 28672

/* per-CPU values are limited to 32 KiB: PCPU_MIN_UNIT_SIZE, include/linux/percpu.h */
struct roll {
	__u32 used;
	__u32 seen;
	__u8 bytes[ROLL_BYTES];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct roll);
} rolls SEC(".maps");

static __always_inline void add_mapping(struct roll *roll, struct draft *draft, struct vm_area_struct *area)
{
	struct file *file = BPF_CORE_READ(area, vm_file);
	struct mappings_record *record = (void *)roll->bytes;
	struct inode *inode;
	struct mapping *mapping;
	__u32 used = (roll->used + 7) & ~7U, length;
	int packed;

	if (!file || !(BPF_CORE_READ(area, vm_flags) & VM_EXEC))
		return;
	if (used > ROLL_BYTES - sizeof(*mapping) - 2048) {
		record->truncated = 1;
		return;
	}
	mapping = (void *)(roll->bytes + used);
	inode = BPF_CORE_READ(file, f_inode);
	mapping->start = BPF_CORE_READ(area, vm_start);
	mapping->end = BPF_CORE_READ(area, vm_end);
	mapping->offset_pages = BPF_CORE_READ(area, vm_pgoff);
	mapping->inode = BPF_CORE_READ(inode, i_ino);
	mapping->device = device_of(inode);
	draft->used = 0;
	packed = append_path(draft, (__u64)BPF_CORE_READ(file, f_path.dentry), (__u64)BPF_CORE_READ(file, f_path.mnt));
	mapping->path = SPAN_OF(packed);
	length = packed & 0xffff;
	if (length > 2048)
		return;
	bpf_probe_read_kernel(roll->bytes + used + sizeof(*mapping), length, draft->bytes);
	roll->used = used + sizeof(*mapping) + length;
	record->count++;
}

/* Walks the mappings of the current task, at most once a process. */
static __always_inline void emit_mappings(struct task_struct *task, __u32 pid)
{
	struct bpf_iter_task_vma iterator;
	struct vm_area_struct *area;
	struct mappings_record *record;
	struct roll *roll;
	struct draft *draft;
	__u32 zero = 0, used;

	if (!bpf_iter_task_vma_new || !bpf_iter_task_vma_next || !bpf_iter_task_vma_destroy)
		return;
	roll = bpf_map_lookup_elem(&rolls, &zero);
	draft = begin_draft(DRAFT_EXIT, 0);
	if (!roll || !draft)
		return;
	record = (void *)roll->bytes;
	set_head(&record->head, RECORD_MAPPINGS, pid);
	record->count = record->truncated = 0;
	roll->used = sizeof(*record);
	roll->seen = 0;
	bpf_iter_task_vma_new(&iterator, task, 0);
	while ((area = bpf_iter_task_vma_next(&iterator))) {
		if (roll->seen++ > MAPPINGS_SEEN)
			break;
		add_mapping(roll, draft, area);
	}
	bpf_iter_task_vma_destroy(&iterator);
	used = roll->used;
	if (!record->count || used > ROLL_BYTES)
		return;
	if (bpf_ringbuf_output(&ring, roll->bytes, used, 0))
		count_lost_record();
}

static __always_inline bool ended_by_fault(int status)
{
	return (status & 0x7f) < 32 && (FAULT_SIGNALS >> (status & 0x7f) & 1);
}

struct time_walk {
	void *head;
	struct list_head *node;
	__u64 user_ns, system_ns;
};

static long step_times(__u32 index, struct time_walk *walk)
{
	struct list_head *node = walk->node;
	struct task_struct *thread = (void *)node - bpf_core_field_offset(struct task_struct, thread_node);

	if (!node || (void *)node == walk->head)
		return 1;
	walk->user_ns += BPF_CORE_READ(thread, utime);
	walk->system_ns += BPF_CORE_READ(thread, stime);
	walk->node = 0;
	bpf_probe_read_kernel(&walk->node, sizeof(walk->node), &node->next);
	return 0;
}

/* CPU time of the whole group: of threads long gone, and of those that are still on their way out. */
static __always_inline void set_times(struct exit_record *record, struct task_struct *task)
{
	struct signal_struct *group = BPF_CORE_READ(task, signal);
	struct time_walk walk = {};

	walk.head = (void *)group + bpf_core_field_offset(struct signal_struct, thread_head);
	bpf_probe_read_kernel(&walk.node, sizeof(walk.node), walk.head);
	walk.user_ns = BPF_CORE_READ(group, utime);
	walk.system_ns = BPF_CORE_READ(group, stime);
	bpf_loop(THREADS_SUMMED, step_times, &walk, 0);
	record->user_ns = walk.user_ns;
	record->system_ns = walk.system_ns;
}

static __always_inline void set_last_syscall(struct exit_record *record, struct task_struct *task)
{
	struct pt_regs *regs = (void *)bpf_task_pt_regs(task);

	record->syscall = ABSENT;
	if (!regs)
		return;
	record->syscall = CALL_NUMBER(regs);
	record->syscall_args[0] = CALL_ARGUMENT_0(regs);
	record->syscall_args[1] = CALL_ARGUMENT_1(regs);
	record->syscall_args[2] = CALL_ARGUMENT_2(regs);
	record->syscall_args[3] = CALL_ARGUMENT_3(regs);
	record->syscall_args[4] = CALL_ARGUMENT_4(regs);
	record->syscall_args[5] = CALL_ARGUMENT_5(regs);
}

/*
 * Of this program: signal_struct.maxrss, which getrusage(2) reports, also counts what the process was before exec, and with
 * vfork even its parent. Only where the address space is gone already there is nothing better.
 */
static __always_inline __u64 max_rss_of(struct task_struct *task)
{
	struct mm_struct *mm = BPF_CORE_READ(task, mm);
	__u64 high_water, now;

	if (!mm)
		return BPF_CORE_READ(task, signal, maxrss);
	high_water = BPF_CORE_READ(mm, hiwater_rss);
	now = rss_pages(mm, MM_ANONPAGES) + rss_pages(mm, MM_FILEPAGES) + rss_pages(mm, MM_SHMEMPAGES);
	return high_water > now ? high_water : now;
}

static __always_inline void emit_exit(struct task_struct *task, struct task_struct *leader, __u32 pid, int status)
{
	struct exit_record *record;
	struct draft *draft = begin_draft(DRAFT_EXIT, sizeof(*record));
	int packed;

	if (!draft)
		return;
	record = (void *)draft->bytes;
	set_head(&record->head, RECORD_EXIT, pid);
	record->start_ns = BPF_CORE_READ(leader, start_boottime);
	record->status = status;
	record->ppid = BPF_CORE_READ(leader, real_parent, tgid);
	record->uid = bpf_get_current_uid_gid();
	BPF_CORE_READ_STR_INTO(&record->comm, leader, comm);
	record->max_rss_pages = max_rss_of(task);
	record->reserved = 0;
	set_times(record, task);
	set_last_syscall(record, task);
	packed = append_cgroup(draft, bpf_get_current_task());
	record->cgroup = SPAN_OF(packed);
	packed = append_stderr(draft, bpf_get_current_task());
	record->stderr_path = SPAN_OF(packed);
	record->stderr_kind = KIND_OF(packed);
	emit_draft(draft);
}

/*
 * `live` is counted down before exit_code is set (kernel/exit.c, do_exit). So the thread that finds nobody alive may be
 * ahead of a leader that has not yet stored its code; it then leaves the report to the leader, who must still pass here.
 * Two threads can both find nobody alive: whoever deletes the entry reports.
 */
static __always_inline int on_thread_end(bool with_mappings)
{
	struct task_struct *task = bpf_get_current_task_btf(), *leader;
	struct signal_struct *group;
	struct watch *watch;
	__u32 pid = task->tgid;
	int status;

	watch = bpf_map_lookup_elem(&watched, &pid);
	if (!watch)
		return 0;
	if (task->pid == pid)
		__sync_fetch_and_or(&watch->flags, WATCH_LEADER_PASSED);
	group = BPF_CORE_READ(task, signal);
	if (BPF_CORE_READ(group, live.counter))
		return 0;
	leader = BPF_CORE_READ(task, group_leader);
	/* a leader that was a zombie before anybody watched has left no mark, but an exit_state */
	if (!(watch->flags & WATCH_LEADER_PASSED) && !BPF_CORE_READ(leader, exit_state))
		return 0;
	/* wait_task_zombie(), kernel/exit.c */
	status = BPF_CORE_READ(group, flags) & SIGNAL_GROUP_EXIT ? BPF_CORE_READ(group, group_exit_code) :
								   BPF_CORE_READ(leader, exit_code);
	if (bpf_map_delete_elem(&watched, &pid))
		return 0;
	bpf_map_delete_elem(&python_by_pid, &pid);
	if (with_mappings && ended_by_fault(status))
		emit_mappings(task, pid);
	emit_exit(task, leader, pid, status);
	return 0;
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(on_exit_with_memory, struct task_struct *task, bool group_dead)
{
	/* naming the parameter is the point; `live` tells the same for a leader that came late */
	if (group_dead)
		barrier_var(group_dead);
	return on_thread_end(true);
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(on_exit, struct task_struct *task)
{
	return on_thread_end(false);
}

static __always_inline int before_exit(long code)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct watch *watch;
	__u32 pid = task->tgid;

	if (!ended_by_fault(code))
		return 0;
	watch = bpf_map_lookup_elem(&watched, &pid);
	if (!watch || __sync_fetch_and_or(&watch->flags, WATCH_MAPPED) & WATCH_MAPPED)
		return 0;
	emit_mappings(task, pid);
	return 0;
}

SEC("fentry/do_exit")
int BPF_PROG(before_exit_fentry, long code)
{
	return before_exit(code);
}
