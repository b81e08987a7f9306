// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* Who sends what to a watched process. */
#include "shared.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* these end nobody and are sent all the time */
#define ROUTINE_SIGNALS (BIT(SIGCHLD) | BIT(SIGCONT) | BIT(SIGURG) | BIT(SIGWINCH))
/* these tell something even where the program catches them: it may end because of them, in good order */
#define TELLING_SIGNALS                                                                                                   \
	(FAULT_SIGNALS | BIT(SIGHUP) | BIT(SIGINT) | BIT(SIGQUIT) | BIT(SIGTERM) | BIT(SIGUSR1) | BIT(SIGUSR2) |            \
	 BIT(SIGXCPU) | BIT(SIGKILL))

static __always_inline int code_of(struct kernel_siginfo *info)
{
	int code = SI_USER;

	/* SEND_SIG_NOINFO and SEND_SIG_PRIV are not pointers: include/linux/sched/signal.h */
	if ((__u64)info == 0)
		return code;
	if ((__u64)info == 1)
		return SI_KERNEL;
	/* never a direct load, which 6.1 and 6.12 refuse */
	bpf_probe_read_kernel(&code, sizeof(code), &info->si_code);
	return code;
}

static __always_inline unsigned long handler_of(struct task_struct *task, int signal)
{
	unsigned long handler = 0;
	void *actions = (void *)BPF_CORE_READ(task, sighand) + bpf_core_field_offset(struct sighand_struct, action);

	bpf_probe_read_kernel(&handler, sizeof(handler), actions + (signal - 1) * sizeof(struct k_sigaction));
	return handler;
}

static __always_inline __u32 sender_flags_of(struct task_struct *sender)
{
	struct signal_struct *group = BPF_CORE_READ(sender, signal);
	__u32 flags = 0, level = 0, nr;

	if (BPF_CORE_READ(sender, flags) & PF_EXITING)
		flags |= SENDER_EXITING;
	if (BPF_CORE_READ(group, tty))
		flags |= SENDER_HAS_TTY;
	/* SIGNAL_UNKILLABLE would say the same, but is gone once the init itself is being ended */
	nr = namespace_id(BPF_CORE_READ(group, pids[PIDTYPE_TGID]), &level);
	if (level && nr == 1)
		flags |= SENDER_PIDNS_INIT;
	return flags;
}

SEC("tp_btf/signal_generate")
int BPF_PROG(on_signal, int signal, struct kernel_siginfo *info, struct task_struct *task, int group, int result)
{
	struct task_struct *sender, *leader;
	struct signal_record *record;
	struct draft *draft;
	__u32 pid, disposition;
	int packed;

	if (signal < 1 || signal > 64 || (signal < 64 && (ROUTINE_SIGNALS >> signal & 1)))
		return 0;
	pid = task->tgid;
	if (!bpf_map_lookup_elem(&watched, &pid))
		return 0;
	disposition = disposition_of(handler_of(task, signal));
	if (disposition == DISPOSITION_CAUGHT && !(signal < 64 && (TELLING_SIGNALS >> signal & 1)))
		return 0;
	draft = begin_draft(DRAFT_SIGNAL, sizeof(*record));
	if (!draft)
		return 0;
	record = (void *)draft->bytes;
	set_head(&record->head, RECORD_SIGNAL, pid);
	record->start_ns = BPF_CORE_READ(task, group_leader, start_boottime);
	BPF_CORE_READ_STR_INTO(&record->comm, task, group_leader, comm);
	record->tid = task->pid;
	record->signal = signal;
	record->code = code_of(info);
	record->result = result;
	record->group = group;
	record->disposition = disposition;

	sender = bpf_get_current_task_btf();
	leader = BPF_CORE_READ(sender, group_leader);
	record->sender_pid = sender->tgid;
	record->sender_tid = sender->pid;
	record->sender_start_ns = BPF_CORE_READ(leader, start_boottime);
	BPF_CORE_READ_STR_INTO(&record->sender_comm, leader, comm);
	record->sender_uid = bpf_get_current_uid_gid();
	record->sender_flags = sender_flags_of(sender);
	set_ancestors(record->sender_ancestors, sender);
	packed = append_path(draft, (__u64)BPF_CORE_READ(sender, mm, exe_file, f_path.dentry),
			     (__u64)BPF_CORE_READ(sender, mm, exe_file, f_path.mnt));
	record->sender_exe = SPAN_OF(packed);
	packed = append_cgroup(draft, bpf_get_current_task());
	record->sender_cgroup = SPAN_OF(packed);
	emit_draft(draft);
	return 0;
}
