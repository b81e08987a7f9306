// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* A sample of every thread of every watched process: read through an iterator, so it costs nothing between two samples. */
#include "pulse.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

SEC("iter/task")
int on_pulse(struct bpf_iter__task *context)
{
	struct task_struct *task = context->task;
	struct control *control_now;
	__u32 pid;

	if (!task)
		return 0;
	write_pulse_head(context->meta);
	pid = task->tgid;
	control_now = the_control();
	if (control_now && control_now->leaders_only && pid != task->pid)
		return 0;
	if (bpf_map_lookup_elem(&watched, &pid))
		write_pulse_row(context->meta, task);
	return 0;
}
