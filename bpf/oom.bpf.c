// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* The OOM killer chose a victim. Rare, so it is reported for every process: a neighbour's death explains pressure too. */
#include "shared.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

SEC("tp_btf/mark_victim")
int BPF_PROG(on_oom_victim, struct task_struct *victim)
{
	struct task_struct *trigger = bpf_get_current_task_btf();
	struct mm_struct *mm = BPF_CORE_READ(victim, mm);
	struct oom_record *record;
	struct draft *draft = begin_draft(DRAFT_OOM, sizeof(*record));
	int packed;

	if (!draft)
		return 0;
	record = (void *)draft->bytes;
	__builtin_memset(record, 0, sizeof(*record));
	set_head(&record->head, RECORD_OOM, victim->tgid);
	record->start_ns = BPF_CORE_READ(victim, group_leader, start_boottime);
	BPF_CORE_READ_STR_INTO(&record->comm, victim, group_leader, comm);
	record->uid = BPF_CORE_READ(victim, cred, uid.val);
	record->anon_pages = rss_pages(mm, MM_ANONPAGES);
	record->file_pages = rss_pages(mm, MM_FILEPAGES);
	record->shmem_pages = rss_pages(mm, MM_SHMEMPAGES);
	record->total_vm_pages = mm ? (__s64)BPF_CORE_READ(mm, total_vm) : ABSENT;
	record->pgtables_bytes = mm ? BPF_CORE_READ(mm, pgtables_bytes.counter) : ABSENT;
	record->oom_score_adj = BPF_CORE_READ(victim, signal, oom_score_adj);
	record->trigger_pid = trigger->tgid;
	BPF_CORE_READ_STR_INTO(&record->trigger_comm, trigger, comm);
	packed = append_cgroup(draft, (__u64)BPF_CORE_READ(victim, group_leader));
	record->cgroup = SPAN_OF(packed);
	packed = append_cgroup(draft, bpf_get_current_task());
	record->trigger_cgroup = SPAN_OF(packed);
	emit_draft(draft);
	return 0;
}
