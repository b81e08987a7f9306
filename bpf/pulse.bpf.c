// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* A sample of every thread of every watched process: read through an iterator, so it costs nothing between two samples. */
#include "shared.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

SEC("iter/task")
int on_pulse(struct bpf_iter__task *context)
{
	struct task_struct *task = context->task, *reader;
	struct pulse_row row = {};
	struct mm_struct *mm;
	struct pt_regs *regs;

	if (!task)
		return 0;
	row.pid = task->tgid;
	if (!bpf_map_lookup_elem(&watched, &row.pid))
		return 0;
	row.tid = task->pid;
	row.start_ns = BPF_CORE_READ(task, group_leader, start_boottime);
	row.now_ns = bpf_ktime_get_ns();
	if (bpf_core_field_exists(task->sched_info.last_arrival)) {
		reader = bpf_get_current_task_btf();
		row.arrival_ns = task->sched_info.last_arrival;
		row.reader_arrival_ns = reader->sched_info.last_arrival;
	}
	row.user_ns = task->utime;
	row.system_ns = task->stime;
	row.voluntary_switches = task->nvcsw;
	row.involuntary_switches = task->nivcsw;
	mm = BPF_CORE_READ(task, mm);
	row.anon_pages = rss_pages(mm, MM_ANONPAGES);
	row.file_pages = rss_pages(mm, MM_FILEPAGES);
	row.shmem_pages = rss_pages(mm, MM_SHMEMPAGES);
	row.state = task->__state | task->exit_state;
	row.syscall = ABSENT;
	regs = (void *)bpf_task_pt_regs(task);
	if (regs) {
		row.syscall = regs->orig_ax;
		row.syscall_args[0] = regs->di;
		row.syscall_args[1] = regs->si;
		row.syscall_args[2] = regs->dx;
		row.syscall_args[3] = regs->r10;
		row.syscall_args[4] = regs->r8;
		row.syscall_args[5] = regs->r9;
	}
	BPF_CORE_READ_STR_INTO(&row.comm, task, comm);
	bpf_seq_write(context->meta->seq, &row, sizeof(row));
	return 0;
}
