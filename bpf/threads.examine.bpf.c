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
	/* System V ABI, AMD64 supplement, figure 3.36: rax rdx rcx rbx rsi rdi rbp rsp r8..r15 rip */
	row.registers[0] = regs->ax;
	row.registers[1] = regs->dx;
	row.registers[2] = regs->cx;
	row.registers[3] = regs->bx;
	row.registers[4] = regs->si;
	row.registers[5] = regs->di;
	row.registers[6] = regs->bp;
	row.registers[7] = regs->sp;
	row.registers[8] = regs->r8;
	row.registers[9] = regs->r9;
	row.registers[10] = regs->r10;
	row.registers[11] = regs->r11;
	row.registers[12] = regs->r12;
	row.registers[13] = regs->r13;
	row.registers[14] = regs->r14;
	row.registers[15] = regs->r15;
	row.registers[16] = regs->ip;
	bpf_seq_write(context->meta->seq, &row, sizeof(row));
	return 0;
}
