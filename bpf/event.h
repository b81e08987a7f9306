/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The whole contract between the probes and Python: agentscope/sources/wire.py mirrors every struct and number of this
 * file, and tests/test_wire.py compares the two. Plain C, so that a host compiler can read it too.
 *
 * Every record starts with `struct head`. Text follows the fixed part, in the order in which its spans are named. A path
 * span holds the names from the leaf up, each ended by a NUL, because that is the order in which the kernel can be walked.
 * No struct has implicit padding. All times are CLOCK_BOOTTIME nanoseconds unless a comment says otherwise.
 */
#ifndef AGENTSCOPE_EVENT_H
#define AGENTSCOPE_EVENT_H

#include <linux/types.h>

enum record_kind {
	RECORD_EXEC = 1,
	RECORD_FORK = 2,
	RECORD_EXIT = 3,
	RECORD_SIGNAL = 4,
	RECORD_FAULT = 5,
	RECORD_OOM = 6,
	RECORD_MAPPINGS = 7, /* precedes the RECORD_EXIT of the same pid */
	RECORD_FRAMES = 8,   /* precedes the RECORD_FAULT of the same tid */
};

enum span_flag {
	SPAN_COMPLETE = 1, /* the walk reached the root */
	SPAN_DELETED = 2,  /* the file has no name any more */
	SPAN_PRESENT = 4,  /* there was something to name */
};

enum stream_kind {
	STREAM_UNKNOWN = 0,
	STREAM_CLOSED = 1,
	STREAM_FILE = 2,
	STREAM_TERMINAL = 3,
	STREAM_PIPE = 4,
	STREAM_SOCKET = 5,
	STREAM_NULL = 6,
	STREAM_OTHER = 7,
};

enum disposition {
	DISPOSITION_DEFAULT = 0,
	DISPOSITION_IGNORE = 1,
	DISPOSITION_CAUGHT = 2,
};

enum sender_flag {
	SENDER_EXITING = 1,
	SENDER_PIDNS_INIT = 2,
	SENDER_HAS_TTY = 4,
};

#define COMM_BYTES 16
#define ANCESTORS 4
#define ARGV_BYTES 512
#define STACK_BYTES 16384
#if defined(__TARGET_ARCH_arm64) || defined(__aarch64__)
#define REGISTERS 33 /* DWARF numbers of aarch64: x0..x30, sp, pc */
#else
#define REGISTERS 17 /* DWARF numbers of x86-64: 0..16 */
#endif
#define PYTHON_FRAMES 32
#define PYTHON_NAME_BYTES 96
#define PYTHON_FILE_BYTES 160
#define PYTHON_LINES_BYTES 512
#define WORDS_BYTES 4096

/* what is absent: a count of pages or a system call number that could not be read */
#define ABSENT (-1)

struct head {
	__u32 kind;
	__u32 pid; /* tgid in the initial pid namespace */
	__u64 at_ns;
};

struct span {
	__u16 length;
	__u16 flags;
};

struct ancestor {
	__u32 pid; /* 0 ends the list */
	char comm[COMM_BYTES];
};

struct fork_record {
	struct head head;
	__u64 start_ns;
	__u32 ppid;
	char comm[COMM_BYTES];
	__u32 reserved;
};

struct exec_record {
	struct head head;
	__u64 start_ns;
	__u32 ppid;
	__u32 uid;
	char comm[COMM_BYTES];
	struct ancestor ancestors[ANCESTORS];
	__u32 stderr_kind;
	struct span argv; /* NUL-separated, as in memory */
	struct span exe;
	struct span cgroup;
	struct span stderr_path;
	__u32 reserved;
};

struct exit_record {
	struct head head;
	__u64 start_ns;
	__u64 user_ns;
	__u64 system_ns;
	__u64 max_rss_pages; /* 0: not known */
	__u64 syscall_args[6];
	__s32 syscall; /* ABSENT: the thread was not in one */
	__s32 status;
	__u32 ppid;
	__u32 uid;
	char comm[COMM_BYTES];
	__u32 stderr_kind;
	struct span cgroup;
	struct span stderr_path;
	__u32 reserved;
};

struct signal_record {
	struct head head;
	__u64 start_ns;
	__u64 sender_start_ns;
	__u32 tid;
	__s32 signal;
	__s32 code;
	__s32 result;
	__u32 group;
	__u32 disposition;
	__u32 sender_pid;
	__u32 sender_tid;
	__u32 sender_uid;
	__u32 sender_flags;
	char comm[COMM_BYTES];
	char sender_comm[COMM_BYTES];
	struct ancestor sender_ancestors[ANCESTORS];
	struct span sender_exe;
	struct span sender_cgroup;
};

/* one executable, file-backed mapping; its path follows at once */
struct mapping {
	__u64 start;
	__u64 end;
	__u64 offset_pages; /* how large a page is only user space knows */
	__u64 inode;
	__u32 device; /* the kernel's: major << 20 | minor */
	struct span path;
};

/* followed by `count` mappings, each begun at a multiple of 8 */
struct mappings_record {
	struct head head;
	__u32 count;
	__u32 truncated;
};

/* followed by the path of `module`, then by `stack_length` bytes of user memory from the stack pointer up */
struct fault_record {
	struct head head;
	__u64 start_ns;
	__u64 address;
	__u64 registers[REGISTERS];
	__u32 tid;
	__s32 signal;
	__s32 code;
	__s32 syscall; /* SIGSYS only, else ABSENT */
	__u32 disposition;
	__u32 stack_length;
	char comm[COMM_BYTES];
	struct mapping module; /* end 0: none found */
};

/* one string object of CPython: `length` code units of `kind` bytes each, cut to the room there is */
struct python_text {
	__u32 length;
	__u32 kind;
};

struct python_frame {
	__u32 first_line;
	__s32 instruction; /* byte offset of the instruction in the code object */
	__u32 lines_length;
	struct python_text name_text;
	struct python_text file_text;
	__u32 inner; /* the interpreter's own: nothing else is set */
	char name[PYTHON_NAME_BYTES];
	char file[PYTHON_FILE_BYTES];
	__u8 lines[PYTHON_LINES_BYTES];
};

/* followed by `count` frames, innermost first */
struct frames_record {
	struct head head;
	__u32 tid;
	__u32 count;
};

struct oom_record {
	struct head head;
	__u64 start_ns;
	__s64 anon_pages;
	__s64 file_pages;
	__s64 shmem_pages;
	__s64 total_vm_pages;
	__s64 pgtables_bytes;
	__s32 oom_score_adj;
	__u32 uid;
	__u32 trigger_pid;
	char comm[COMM_BYTES];
	char trigger_comm[COMM_BYTES];
	struct span cgroup;
	struct span trigger_cgroup;
	__u32 reserved;
};

/* before the rows of one pass of an iterator that samples */
struct pulse_head {
	__u64 now_ns;            /* CLOCK_MONOTONIC */
	__u64 boot_ns;           /* CLOCK_BOOTTIME, the same moment */
	__u64 reader_arrival_ns; /* sched_clock when the reading thread got its CPU; 0: kernel without SCHED_INFO */
};

/*
 * One thread. The pages are of its process and stand in one row of it (else ABSENT); what follows them stays the same to the
 * bit while the thread does nothing, so that user space can tell by comparing.
 */
struct pulse_row {
	__s64 anon_pages; /* ABSENT: no address space, or another row has it */
	__s64 file_pages;
	__s64 shmem_pages;
	__u32 pid;
	__u32 tid;
	__u64 start_ns;   /* of the process */
	__u64 arrival_ns; /* sched_clock when it last got a CPU; 0: never, or kernel without SCHED_INFO */
	__u64 user_ns;
	__u64 system_ns;
	__u64 delayed_ns; /* ready to run, without a CPU */
	__u64 voluntary_switches;
	__u64 involuntary_switches;
	__s64 read_bytes; /* through read(2) and its kin, not from sockets by recv(2); ABSENT: kernel without TASK_XACCT */
	__s64 written_bytes;
	__u64 ip;         /* in user space, when it last entered the kernel */
	__u64 syscall_args[6];
	__s32 syscall;
	__u32 state;
	char comm[COMM_BYTES];
};

/* one thread, as the iterator of registers() writes it: what user space had when it last entered the kernel */
struct registers_row {
	__u32 pid;
	__u32 tid;
	__u64 registers[REGISTERS];
};

#define ADDRESS_BYTES 112 /* struct sockaddr_un is the longest, 110 */

/* key of map `calls` of a profile; the value is how often */
struct call_key {
	__u32 pid;
	__u16 number;
	__u16 error; /* errno; 0: it succeeded */
};

/* key of map `connects`: a struct sockaddr as it lies in memory, of a connection-oriented socket */
struct connect_key {
	__u32 pid;
	__u16 error; /* EINPROGRESS until somebody asks for the result */
	__u16 length;
	__u8 address[ADDRESS_BYTES];
};

/* key of map `statuses`: of answers that begin "HTTP/1.x " */
struct status_key {
	__u32 pid;
	__u32 status;
};

/* value of map `watched`, keyed by tgid */
struct watch {
	__u64 execed_ns; /* when its program was started, if that was seen: never after `at_ns` of the record of it */
	__u64 last_fault_ns;
	__u32 faults;
	__u32 flags;
};

/* the one value of map `control`, shared with user space through mmap */
struct control {
	__u64 lost_records; /* the ring was full */
	__u64 lost_watches; /* the map `watched` was full: a process and its descendants go unseen */
	__u32 discover;
	__u32 leaders_only; /* the next pass of the sample tells processes, not their threads */
};

/* value of map `tails`, keyed by tgid: a ring of WORDS_BYTES and room for one write to run over its end */
struct tail {
	__u64 position;
	__u64 written_ns; /* CLOCK_BOOTTIME of the last write */
	__u8 bytes[2 * WORDS_BYTES];
};

/* where one build of CPython keeps what leads to its frames: offsets in bytes */
struct python_layout {
	__u32 interpreters_head;
	__u32 interpreter_next;
	__u32 threads_head;
	__u32 thread_next;
	__u32 native_thread_id;
	__u32 frame_holder; /* offset of the pointer that leads to current_frame (3.11, 3.12); 0: the thread state itself */
	__u32 current_frame;
	__u32 frame_code;
	__u32 frame_previous;
	__u32 frame_instruction;
	__u32 frame_owner;
	__u32 code_filename;
	__u32 code_qualname;
	__u32 code_linetable;
	__u32 code_firstlineno;
	__u32 code_instructions;
	__u32 text_length;
	__u32 text_state;
	__u32 text_kind_shift;
	__u32 text_ascii_size;
	__u32 text_compact_size;
	__u32 bytes_length;
	__u32 bytes_content;
	__u32 reserved;
};

/* value of map `python_by_pid`, keyed by tgid */
struct python_process {
	__u64 runtime; /* address of _PyRuntime */
	struct python_layout layout;
};

/* key and value of map `python_by_exe`: for processes that user space has not looked at yet */
struct exe_key {
	__u64 inode;
	__u64 size_bytes; /* instead of the device, which overlays and btrfs report differently to stat and to the kernel */
};

struct python_exe {
	__u64 code_vaddr;    /* lowest executable address in the file; mm->start_code minus this is the load bias */
	__u64 debug_vaddr;   /* of the value of DT_DEBUG, where `library_dynamic` is set */
	__u64 library_dynamic; /* address of the dynamic section in libpython; 0: the runtime is in the executable */
	__u64 runtime_vaddr; /* of _PyRuntime, in the executable or in libpython */
	struct python_layout layout;
};

#endif
