// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * The threads of one process, asked for by itself: user space scopes these iterators to a process (bpf_iter_link_info), or
 * picks its rows where the kernel cannot (before 6.1).
 */
#include "pulse.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

SEC("iter/task")
int on_sample(struct bpf_iter__task *context)
{
	struct task_struct *task = context->task;

	if (!task)
		return 0;
	write_pulse_head(context->meta);
	write_pulse_row(context->meta, task);
	return 0;
}

SEC("iter/task")
int on_registers(struct bpf_iter__task *context)
{
	struct task_struct *task = context->task;
	struct registers_row row = {};
	struct pt_regs *regs;

	if (!task)
		return 0;
	regs = (void *)bpf_task_pt_regs(task);
	if (!regs)
		return 0;
	row.pid = task->tgid;
	row.tid = task->pid;
	copy_registers(row.registers, regs);
	bpf_seq_write(context->meta->seq, &row, sizeof(row));
	return 0;
}
