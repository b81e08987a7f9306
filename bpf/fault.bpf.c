// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/* A thread is about to take a signal that it brought upon itself: registers, stack and Python frames, before they are gone. */
#include "shared.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define PAGE_BYTES 4096U /* the smallest there is; on kernels with larger ones the copy takes more steps */
#define FULL_FAULTS 8 /* of a process that catches them; then one a second: JVM and Go take SIGSEGV on purpose */
#define SECOND_NS 1000000000ULL

/* per-CPU values are limited to 32 KiB: PCPU_MIN_UNIT_SIZE, include/linux/percpu.h */
struct scene {
	struct fault_record record;
	__u8 bytes[DRAFT_BYTES + STACK_BYTES + PAGE_BYTES];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct scene);
} scenes SEC(".maps");

struct found_area {
	__u64 start, end, offset_pages;
	struct file *file;
};

static long keep_area(struct task_struct *task, struct vm_area_struct *area, struct found_area *found)
{
	found->start = BPF_CORE_READ(area, vm_start);
	found->end = BPF_CORE_READ(area, vm_end);
	found->offset_pages = BPF_CORE_READ(area, vm_pgoff);
	found->file = BPF_CORE_READ(area, vm_file);
	return 0;
}

/*
 * Once only: interrupts are off here, and bpf_find_vma() can put off one unlock of the mmap lock a CPU (-EBUSY after that).
 * So it fails where another BPF tool has asked at the same fault; the mappings at the end then still tell the module.
 */
static __always_inline __u32 set_module(struct scene *scene, struct task_struct *task, __u64 ip)
{
	struct found_area found = {};
	struct mapping *module = &scene->record.module;
	struct draft *draft;
	struct file *file;
	struct inode *inode;
	__u32 length;
	int packed;

	__builtin_memset(module, 0, sizeof(*module));
	if (bpf_find_vma(task, ip, keep_area, &found, 0) || !found.file)
		return 0;
	file = found.file;
	inode = BPF_CORE_READ(file, f_inode);
	module->start = found.start;
	module->end = found.end;
	module->offset_pages = found.offset_pages;
	module->inode = BPF_CORE_READ(inode, i_ino);
	module->device = device_of(inode);
	draft = begin_draft(DRAFT_FAULT, 0);
	if (!draft)
		return 0;
	packed = append_path(draft, (__u64)BPF_CORE_READ(file, f_path.dentry),
			     (__u64)BPF_CORE_READ(file, f_path.mnt));
	length = packed & 0xffff;
	if (length > DRAFT_BYTES || bpf_probe_read_kernel(scene->bytes, length, draft->bytes))
		return 0;
	module->path = SPAN_OF(packed);
	return length;
}

/* A read over a page that is not there fails whole: first to the end of the page, then page by page. */
static __always_inline __u32 copy_stack(__u8 *to, __u64 sp)
{
	__u32 got = PAGE_BYTES - (sp & (PAGE_BYTES - 1));

	if (bpf_probe_read_user(to, got, (void *)sp))
		return 0;
	for (int i = 0; i < STACK_BYTES / PAGE_BYTES; i++) {
		if (got > STACK_BYTES - PAGE_BYTES || bpf_probe_read_user(to + got, PAGE_BYTES, (void *)(sp + got)))
			break;
		got += PAGE_BYTES;
	}
	return got;
}

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

SEC("tp_btf/signal_deliver")
int BPF_PROG(on_fault, int signal, struct kernel_siginfo *info, struct k_sigaction *action)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct kernel_siginfo reason = {};
	struct k_sigaction taken = {};
	struct fault_record *record;
	struct pt_regs *regs;
	struct watch *watch;
	struct scene *scene;
	__u32 pid = task->tgid, zero = 0, disposition, path_length, stack_length;

	if (signal < 1 || signal > 31 || !(FAULT_SIGNALS >> signal & 1))
		return 0;
	watch = bpf_map_lookup_elem(&watched, &pid);
	if (!watch)
		return 0;
	bpf_probe_read_kernel(&taken, sizeof(taken), action);
	disposition = disposition_of(taken.sa_handler);
	if (disposition == DISPOSITION_IGNORE || too_often(watch, disposition))
		return 0;
	scene = bpf_map_lookup_elem(&scenes, &zero);
	if (!scene)
		return 0;
	emit_python_frames(pid);
	record = &scene->record;
	set_head(&record->head, RECORD_FAULT, pid);
	record->start_ns = BPF_CORE_READ(task, group_leader, start_boottime);
	record->tid = task->pid;
	record->signal = signal;
	record->disposition = disposition;
	record->syscall = ABSENT;
	record->address = 0;
	if ((__u64)info <= 1) {
		record->code = (__u64)info ? SI_KERNEL : SI_USER;
	} else {
		/* never a direct load, which 6.1 and 6.12 refuse */
		bpf_probe_read_kernel(&reason, sizeof(reason), info);
		record->code = reason.si_code;
		if (signal == SIGSYS)
			record->syscall = reason.syscall;
		else
			record->address = reason.fault_address;
	}
	BPF_CORE_READ_STR_INTO(&record->comm, task, comm);
	regs = (void *)bpf_task_pt_regs(task);
	copy_registers(record->registers, regs);
	path_length = set_module(scene, task, record->registers[INSTRUCTION_POINTER_AT]);
	if (path_length > DRAFT_BYTES)
		return 0;
	stack_length = copy_stack(scene->bytes + path_length, record->registers[STACK_POINTER_AT]);
	record->stack_length = stack_length;
	if (stack_length > STACK_BYTES)
		return 0;
	if (bpf_ringbuf_output(&ring, scene, sizeof(*record) + path_length + stack_length, 0))
		count_lost_record();
	return 0;
}
