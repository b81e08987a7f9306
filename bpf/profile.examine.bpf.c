// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * What examined processes call, and how it ends. Attached for a few seconds only, since it costs every system call of the host
 * a little. One probe at the end of calls is enough: the saved registers keep the number and the arguments, so
 * nothing need be remembered from the entry, and calls that began before it was attached are seen whole.
 */
#include "shared.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define CALLS_KNOWN 1024      /* numbers above are none of the table */
#define ERRNO_LIMIT 4095      /* MAX_ERRNO, include/linux/err.h */
#define END_OF_STREAM 4096    /* no errno: the other side has closed, recv(2) */
#define ENOTSOCK 88
#define EISCONN 106
#define EALREADY 114
#define EINPROGRESS 115
#define AF_UNIX 1
#define AF_INET 2
#define AF_INET6 10
#define SOL_SOCKET 1
#define SO_ERROR 4
#define SOCK_DGRAM 2
#define STATUS_LINE_BYTES 12  /* "HTTP/1.1 200" */

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, __u64); /* bytes written to descriptors 1 and 2 */
} examined SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 8192);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct call_key);
	__type(value, __u64);
} calls SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 512);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct connect_key);
	__type(value, __u64);
} connects SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 512);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct status_key);
	__type(value, __u64);
} statuses SEC(".maps");

struct descriptor_key {
	__u32 pid;
	__u32 descriptor;
};

/* connects whose end is still to come; an LRU, since many a program never asks for it */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, struct descriptor_key);
	__type(value, struct connect_key);
} connecting SEC(".maps");

/* how much did not fit the tables */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} uncounted SEC(".maps");

static __always_inline void add(void *map, const void *key, __u64 amount)
{
	__u64 *count = bpf_map_lookup_elem(map, key), none = 0;
	__u32 zero = 0;

	if (!count) {
		bpf_map_update_elem(map, key, &none, BPF_NOEXIST);
		count = bpf_map_lookup_elem(map, key);
	}
	if (!count)
		count = bpf_map_lookup_elem(&uncounted, &zero);
	if (count)
		__sync_fetch_and_add(count, amount);
}

/* A connect() of a datagram socket only names a peer: resolvers do it to sort addresses. */
static __always_inline bool is_datagram(__u32 descriptor)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct fdtable *at, table = {};
	struct socket socket = {}, *socket_at;
	struct file *file = 0;

	at = BPF_CORE_READ(task, files, fdt);
	bpf_probe_read_kernel(&table, sizeof(table), at);
	if (descriptor >= table.max_fds)
		return false;
	bpf_probe_read_kernel(&file, sizeof(file), table.fd + descriptor);
	socket_at = BPF_CORE_READ(file, private_data);
	bpf_probe_read_kernel(&socket, sizeof(socket), socket_at);
	return socket.type == SOCK_DGRAM;
}

/* Only what names the peer, so that the same peer is the same key; false for what is no address of ours. */
static __always_inline bool read_address(struct connect_key *key, __u64 from, __u64 length)
{
	__u16 family = 0;
	long got;

	if (length < sizeof(family) || bpf_probe_read_user(&family, sizeof(family), (void *)from))
		return false;
	if (family == AF_INET) {
		key->length = 8; /* family, port, address: ip(7) */
		return !bpf_probe_read_user(key->address, 8, (void *)from);
	}
	if (family == AF_INET6) {
		key->length = 28; /* with flow and scope: ipv6(7) */
		return !bpf_probe_read_user(key->address, 28, (void *)from);
	}
	if (family != AF_UNIX)
		return false;
	/* unix(7): a path ends at its NUL or with the length; an abstract name begins with a NUL and is as long as the length says */
	if (length < 3)
		return false;
	if (length > 110)
		length = 110;
	*(__u16 *)key->address = AF_UNIX;
	got = bpf_probe_read_user_str(key->address + 2, length - 1, (void *)from + 2);
	if (got > 1) {
		key->length = got + 1;
		return true;
	}
	key->length = length;
	return !bpf_probe_read_user(key->address + 2, length - 2, (void *)from + 2);
}

static __always_inline void on_connect(__u32 pid, struct pt_regs *regs, __u32 error)
{
	struct descriptor_key at = { .pid = pid, .descriptor = CALL_ARGUMENT_0(regs) };
	struct connect_key key = { .pid = pid };

	if (error == ENOTSOCK || error == EALREADY || is_datagram(at.descriptor))
		return;
	key.error = error == EISCONN ? 0 : error;
	if (!read_address(&key, CALL_ARGUMENT_1(regs), CALL_ARGUMENT_2(regs)))
		return;
	add(&connects, &key, 1);
	if (error == EINPROGRESS)
		bpf_map_update_elem(&connecting, &at, &key, BPF_ANY);
	else
		bpf_map_delete_elem(&connecting, &at);
}

/* How a connect that did not block went: who began it asks for SO_ERROR. The count moves from "in progress" to its end. */
static __always_inline void on_getsockopt(__u32 pid, struct pt_regs *regs)
{
	struct descriptor_key at = { .pid = pid, .descriptor = CALL_ARGUMENT_0(regs) };
	struct connect_key *begun, key;
	int error = 0;

	if (CALL_ARGUMENT_1(regs) != SOL_SOCKET || CALL_ARGUMENT_2(regs) != SO_ERROR)
		return;
	begun = bpf_map_lookup_elem(&connecting, &at);
	if (!begun || bpf_probe_read_user(&error, sizeof(error), (void *)CALL_ARGUMENT_3(regs)))
		return;
	key = *begun;
	add(&connects, &key, -1);
	key.error = error;
	add(&connects, &key, 1);
	bpf_map_delete_elem(&connecting, &at);
}

static __always_inline __u32 digit(char character)
{
	return character >= '0' && character <= '9' ? character - '0' : 1000;
}

static __always_inline void on_received(__u32 pid, __u64 from, __u64 length)
{
	struct status_key key = { .pid = pid };
	char line[STATUS_LINE_BYTES];

	if (length < sizeof(line) || bpf_probe_read_user(line, sizeof(line), (void *)from))
		return;
	if (line[0] != 'H' || line[1] != 'T' || line[2] != 'T' || line[3] != 'P' || line[4] != '/' || line[5] != '1' ||
	    line[6] != '.' || line[8] != ' ')
		return;
	key.status = 100 * digit(line[9]) + 10 * digit(line[10]) + digit(line[11]);
	if (key.status >= 100 && key.status < 1000)
		add(&statuses, &key, 1);
}

/* The first piece must hold the line: whoever reads HTTP in clear text reads into one buffer. */
static __always_inline void on_received_into(__u32 pid, struct iovec *pieces, long length)
{
	struct iovec first = {};

	if (bpf_probe_read_user(&first, sizeof(first), pieces))
		return;
	on_received(pid, first.base, length < first.length ? length : first.length);
}

static __always_inline void on_success(__u32 pid, __u64 *written, struct pt_regs *regs, long number, long result)
{
	struct user_msghdr message = {};

	switch (number) {
	case CALL_READ:
	case CALL_RECVFROM:
		on_received(pid, CALL_ARGUMENT_1(regs), result);
		break;
	case CALL_READV:
		on_received_into(pid, (void *)CALL_ARGUMENT_1(regs), result);
		break;
	case CALL_RECVMSG:
		if (!bpf_probe_read_user(&message, sizeof(message), (void *)CALL_ARGUMENT_1(regs)))
			on_received_into(pid, message.pieces, result);
		break;
	case CALL_WRITE:
	case CALL_WRITEV:
		if (CALL_ARGUMENT_0(regs) == 1 || CALL_ARGUMENT_0(regs) == 2)
			__sync_fetch_and_add(written, result);
		break;
	case CALL_GETSOCKOPT:
		on_getsockopt(pid, regs);
	}
}

SEC("tp_btf/sys_exit")
int BPF_PROG(on_call_end, struct pt_regs *regs, long result)
{
	__u32 pid = bpf_get_current_pid_tgid() >> 32;
	__u64 *written = bpf_map_lookup_elem(&examined, &pid);
	struct call_key key = { .pid = pid };
	long number;

	if (!written)
		return 0;
	number = CALL_NUMBER(regs);
	if (number < 0 || number >= CALLS_KNOWN || IS_32_BIT(regs)) /* a 32-bit program, whose calls have other numbers */
		return 0;
	key.number = number;
	key.error = result < 0 && result >= -ERRNO_LIMIT ? -result : 0;
	if (!result && (number == CALL_RECVMSG || (number == CALL_RECVFROM && CALL_ARGUMENT_2(regs))))
		key.error = END_OF_STREAM;
	add(&calls, &key, 1);
	if (number == CALL_CONNECT)
		on_connect(pid, regs, key.error);
	else if (!key.error)
		on_success(pid, written, regs, number, result);
	return 0;
}
