/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/* One thread as a row of a sample, for the iterator of the core and for that of an examination. */
#ifndef AGENTSCOPE_PULSE_H
#define AGENTSCOPE_PULSE_H

#include "shared.h"

/* Before the first row of a pass: the clocks of now, and when the reader got its CPU, which bounds how far they are apart. */
static __always_inline void write_pulse_head(struct bpf_iter_meta *meta)
{
	struct pulse_head head = {};
	struct task_struct *reader;

	if (meta->seq_num)
		return;
	head.now_ns = bpf_ktime_get_ns();
	head.boot_ns = bpf_ktime_get_boot_ns();
	reader = bpf_get_current_task_btf();
	if (bpf_core_field_exists(reader->sched_info.last_arrival))
		head.reader_arrival_ns = reader->sched_info.last_arrival;
	bpf_seq_write(meta->seq, &head, sizeof(head));
}

/* Pointers are read by helper: the verifier of 6.x takes a millisecond for each that a program follows by itself. */
static __always_inline void write_pulse_row(struct bpf_iter_meta *meta, struct task_struct *task)
{
	struct pulse_row row = {};
	struct task_struct *leader;
	struct mm_struct *mm = 0;
	struct pt_regs *regs;
	__u64 ran_ns;

	row.pid = task->tgid;
	row.tid = task->pid;
	/* pages once a process; a leader that has ended has no address space any more, so then every thread says them */
	if (row.pid == row.tid) {
		row.start_ns = task->start_boottime;
		mm = BPF_CORE_READ(task, mm);
	} else {
		leader = BPF_CORE_READ(task, group_leader);
		row.start_ns = BPF_CORE_READ(leader, start_boottime);
		if (!BPF_CORE_READ(leader, mm))
			mm = BPF_CORE_READ(task, mm);
	}
	row.anon_pages = rss_pages(mm, MM_ANONPAGES);
	row.file_pages = rss_pages(mm, MM_FILEPAGES);
	row.shmem_pages = rss_pages(mm, MM_SHMEMPAGES);
	if (bpf_core_field_exists(task->sched_info.last_arrival))
		row.arrival_ns = task->sched_info.last_arrival;
	if (bpf_core_field_exists(task->sched_info.run_delay))
		row.delayed_ns = task->sched_info.run_delay;
	/* utime and stime count the timer ticks that met the thread: where a host gives a virtual machine half of a CPU, half of
	 * the ticks never come, and a thread that spins seems to rest. What it ran is measured; the ticks only share it out. */
	row.system_ns = task->stime;
	row.user_ns = task->utime;
	if (bpf_core_field_exists(task->se.sum_exec_runtime)) {
		ran_ns = task->se.sum_exec_runtime;
		row.system_ns = row.system_ns < ran_ns ? row.system_ns : ran_ns;
		row.user_ns = ran_ns - row.system_ns;
	}
	row.voluntary_switches = task->nvcsw;
	row.involuntary_switches = task->nivcsw;
	row.read_bytes = row.written_bytes = ABSENT;
	if (bpf_core_field_exists(task->ioac.rchar)) {
		row.read_bytes = task->ioac.rchar;
		row.written_bytes = task->ioac.wchar;
	}
	row.state = task->__state | task->exit_state;
	row.syscall = ABSENT;
	regs = (void *)bpf_task_pt_regs(task);
	if (regs) {
		row.ip = INSTRUCTION_POINTER(regs);
		row.syscall = CALL_NUMBER(regs);
		row.syscall_args[0] = CALL_ARGUMENT_0(regs);
		row.syscall_args[1] = CALL_ARGUMENT_1(regs);
		row.syscall_args[2] = CALL_ARGUMENT_2(regs);
		row.syscall_args[3] = CALL_ARGUMENT_3(regs);
		row.syscall_args[4] = CALL_ARGUMENT_4(regs);
		row.syscall_args[5] = CALL_ARGUMENT_5(regs);
	}
	bpf_probe_read_kernel_str(&row.comm, sizeof(row.comm), task->comm);
	bpf_seq_write(meta->seq, &row, sizeof(row));
}

#endif
