// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* Births: a watched process forks, or a process becomes another program. */
#include "shared.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

static __always_inline bool start_watching(__u32 pid, __u64 execed_ns)
{
	struct watch fresh = { .execed_ns = execed_ns };
	struct control *control_now;

	if (!bpf_map_update_elem(&watched, &pid, &fresh, BPF_ANY))
		return true;
	control_now = the_control();
	if (control_now)
		__sync_fetch_and_add(&control_now->lost_watches, 1);
	return false;
}

SEC("tp_btf/sched_process_fork")
int BPF_PROG(on_fork, struct task_struct *parent, struct task_struct *child)
{
	__u32 pid = child->tgid, forker = parent->tgid;
	struct fork_record *record;

	if (pid != child->pid || !bpf_map_lookup_elem(&watched, &forker))
		return 0;
	start_watching(pid, 0);
	record = bpf_ringbuf_reserve(&ring, sizeof(*record), 0);
	if (!record) {
		count_lost_record();
		return 0;
	}
	set_head(&record->head, RECORD_FORK, pid);
	record->start_ns = child->start_boottime;
	/* with CLONE_PARENT the forker is a sibling */
	record->ppid = BPF_CORE_READ(child, real_parent, tgid);
	BPF_CORE_READ_STR_INTO(&record->comm, child, comm);
	record->reserved = 0;
	bpf_ringbuf_submit(record, 0);
	return 0;
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(on_exec, struct task_struct *task, int old_pid, struct linux_binprm *bprm)
{
	__u32 pid = task->tgid;
	struct control *control_now = the_control();
	struct exec_record *record;
	struct watch *watch;
	struct draft *draft;
	__u64 arg_start, arg_end, length, now_ns = bpf_ktime_get_boot_ns();
	int packed;

	watch = bpf_map_lookup_elem(&watched, &pid);
	if (watch) {
		/* what was said about the program before, and about the leader that de_thread() ended, is over */
		watch->faults = watch->flags = 0;
		watch->execed_ns = now_ns;
	} else {
		if (!control_now || !control_now->discover)
			return 0;
		start_watching(pid, now_ns);
	}
	/* the new program has its interpreter, if any, elsewhere */
	bpf_map_delete_elem(&python_by_pid, &pid);
	draft = begin_draft(DRAFT_EXEC, sizeof(*record));
	if (!draft)
		return 0;
	record = (void *)draft->bytes;
	set_head(&record->head, RECORD_EXEC, pid);
	record->start_ns = BPF_CORE_READ(task, group_leader, start_boottime);
	record->ppid = BPF_CORE_READ(task, real_parent, tgid);
	record->uid = bpf_get_current_uid_gid();
	BPF_CORE_READ_STR_INTO(&record->comm, task, comm);
	set_ancestors(record->ancestors, task);

	arg_start = BPF_CORE_READ(task, mm, arg_start);
	arg_end = BPF_CORE_READ(task, mm, arg_end);
	length = arg_end > arg_start ? arg_end - arg_start : 0;
	if (length > ARGV_BYTES)
		length = ARGV_BYTES;
	record->argv = (struct span){};
	record->reserved = 0;
	if (length && !bpf_probe_read_user(draft->bytes + sizeof(*record), length, (void *)arg_start)) {
		record->argv = (struct span){ .length = length, .flags = SPAN_PRESENT };
		if (arg_end - arg_start <= ARGV_BYTES)
			record->argv.flags |= SPAN_COMPLETE;
		draft->used += length;
	}
	packed = append_path(draft, (__u64)BPF_CORE_READ(task, mm, exe_file, f_path.dentry),
			     (__u64)BPF_CORE_READ(task, mm, exe_file, f_path.mnt));
	record->exe = SPAN_OF(packed);
	packed = append_cgroup(draft, bpf_get_current_task());
	record->cgroup = SPAN_OF(packed);
	packed = append_stderr(draft, bpf_get_current_task());
	record->stderr_path = SPAN_OF(packed);
	record->stderr_kind = KIND_OF(packed);
	emit_draft(draft);
	return 0;
}
