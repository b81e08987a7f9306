// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * Last words: the tail of what a watched process writes to descriptors 1 and 2. Attached only on demand, since any probe on
 * a system call costs every process of the host. Nothing is sent: user space reads the tail after the end.
 */
#include "shared.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define PIECES 8 /* of one writev */

/* an LRU, so that processes nobody asks about cannot use it up */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 256);
	__type(key, __u32);
	__type(value, struct tail);
} tails SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct tail);
} empty_tail SEC(".maps");

static __always_inline struct tail *tail_of(__u32 pid)
{
	struct tail *tail = bpf_map_lookup_elem(&tails, &pid), *empty;
	__u32 zero = 0;

	if (tail)
		return tail;
	empty = bpf_map_lookup_elem(&empty_tail, &zero);
	if (!empty)
		return 0;
	bpf_map_update_elem(&tails, &pid, empty, BPF_NOEXIST);
	return bpf_map_lookup_elem(&tails, &pid);
}

static __always_inline void keep(struct tail *tail, __u64 from, __u64 length)
{
	__u64 at;

	if (length > WORDS_BYTES) {
		from += length - WORDS_BYTES;
		length = WORDS_BYTES;
	}
	at = tail->position & (WORDS_BYTES - 1);
	/* what runs over the end lands in the second half and is copied to the front */
	if (!length || bpf_probe_read_user(tail->bytes + at, length, (void *)from))
		return;
	if (at + length > WORDS_BYTES)
		bpf_probe_read_kernel(tail->bytes, (at + length - WORDS_BYTES) & (WORDS_BYTES - 1), tail->bytes + WORDS_BYTES);
	tail->position += length;
	tail->written_ns = bpf_ktime_get_boot_ns();
}

static __always_inline struct tail *wanted_tail(struct syscall_entry *call)
{
	__u32 descriptor = call->args[0], pid;

	if (descriptor != 1 && descriptor != 2)
		return 0;
	pid = bpf_get_current_pid_tgid() >> 32;
	return bpf_map_lookup_elem(&watched, &pid) ? tail_of(pid) : 0;
}

SEC("tp/syscalls/sys_enter_write")
int on_write(struct syscall_entry *call)
{
	struct tail *tail = wanted_tail(call);

	if (tail)
		keep(tail, call->args[1], call->args[2]);
	return 0;
}

struct piece {
	__u64 base, length;
};

SEC("tp/syscalls/sys_enter_writev")
int on_writev(struct syscall_entry *call)
{
	struct tail *tail = wanted_tail(call);
	__u64 vector, count;
	struct piece piece;

	if (!tail)
		return 0;
	vector = call->args[1];
	count = call->args[2];
	for (int i = 0; i < PIECES; i++) {
		if (i >= count || bpf_probe_read_user(&piece, sizeof(piece), (void *)(vector + i * sizeof(piece))))
			break;
		keep(tail, piece.base, piece.length);
	}
	return 0;
}
