// SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
/*
 * The Python frames of the current thread, read from CPython's own structs: no cooperation of the interpreter is needed.
 * What user space must know first is in `python_by_pid` or, for a process it has not looked at yet, in `python_by_exe`.
 */
#include "shared.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#define THREADS 512 /* and interpreters */
#define LIBRARIES 64
/* frames that the interpreter puts between C and Python, since 3.12: Include/internal/pycore_frame.h, enum _frameowner */
#define FIRST_INNER_OWNER 3

#define TEXT_MASK 255
_Static_assert(PYTHON_NAME_BYTES <= TEXT_MASK && PYTHON_FILE_BYTES <= TEXT_MASK, "a text is cut by a mask");

struct album {
	struct python_layout layout;
	struct frames_record record;
	struct python_frame frames[PYTHON_FRAMES];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct album);
} albums SEC(".maps");

#define READ_USER(into, at) bpf_probe_read_user(&(into), sizeof(into), (void *)(at))

/* include/link.h of the C library: what a debugger reads through DT_DEBUG */
struct link_map {
	__u64 base, name, dynamic, next;
};

struct library_walk {
	__u64 at, wanted_dynamic, base;
};

static long step_libraries(__u32 index, struct library_walk *walk)
{
	struct link_map library;

	if (!walk->at || READ_USER(library, walk->at))
		return 1;
	if (library.dynamic - library.base == walk->wanted_dynamic) {
		walk->base = library.base;
		return 1;
	}
	walk->at = library.next;
	return 0;
}

/* Load address of the library whose dynamic section lies `library_dynamic` above it. */
static __always_inline __u64 library_base(__u64 debug_at, __u64 library_dynamic)
{
	struct library_walk walk = { .wanted_dynamic = library_dynamic };
	__u64 rendezvous = 0;

	READ_USER(rendezvous, debug_at);
	READ_USER(walk.at, rendezvous + 8);
	bpf_loop(LIBRARIES, step_libraries, &walk, 0);
	return walk.base;
}

/* Address of _PyRuntime in the current process, its layout copied to the album; 0 if it is not known to run Python. */
static __always_inline __u64 find_runtime(struct album *album, struct task_struct *task, __u32 pid)
{
	struct python_process *known = bpf_map_lookup_elem(&python_by_pid, &pid);
	struct exe_key key = {};
	struct python_exe *exe;
	struct inode *inode;
	__u64 bias, base;

	if (known) {
		album->layout = known->layout;
		return known->runtime;
	}
	inode = BPF_CORE_READ(task, mm, exe_file, f_inode);
	key.inode = BPF_CORE_READ(inode, i_ino);
	key.size_bytes = BPF_CORE_READ(inode, i_size);
	exe = bpf_map_lookup_elem(&python_by_exe, &key);
	if (!exe)
		return 0;
	album->layout = exe->layout;
	bias = BPF_CORE_READ(task, mm, start_code) - exe->code_vaddr;
	if (!exe->library_dynamic)
		return bias + exe->runtime_vaddr;
	base = library_base(bias + exe->debug_vaddr, exe->library_dynamic);
	return base ? base + exe->runtime_vaddr : 0;
}

struct thread_walk {
	struct python_layout *layout;
	__u64 interpreter, thread;
	__u32 tid;
	__u32 found;
};

static long step_threads(__u32 index, struct thread_walk *walk)
{
	struct python_layout *layout = walk->layout;
	__u64 id = 0;

	if (!walk->thread) {
		/* the end of one interpreter's list: begin the next one's */
		if (!walk->interpreter || READ_USER(walk->thread, walk->interpreter + layout->threads_head))
			return 1;
		if (READ_USER(walk->interpreter, walk->interpreter + layout->interpreter_next))
			return 1;
		return 0;
	}
	READ_USER(id, walk->thread + layout->native_thread_id);
	if (id == walk->tid) {
		walk->found = 1;
		return 1;
	}
	return READ_USER(walk->thread, walk->thread + layout->thread_next) ? 1 : 0;
}

/* The thread state of the current thread. Not the one that holds the GIL: C code can fault without it. */
static __always_inline __u64 find_thread(struct python_layout *layout, __u64 runtime, __u32 tid)
{
	struct thread_walk walk = { .layout = layout, .tid = tid };

	/*
	 * Nothing that a step branches on may be a constant here: verifiers before 6.8 look at one step only, and take a branch
	 * that this one cannot go for dead code.
	 */
	READ_USER(walk.interpreter, runtime + layout->interpreters_head);
	READ_USER(walk.thread, walk.interpreter + layout->threads_head);
	READ_USER(walk.interpreter, walk.interpreter + layout->interpreter_next);
	bpf_loop(THREADS, step_threads, &walk, 0);
	return walk.found ? walk.thread : 0;
}

/* Include/cpython/unicodeobject.h: `state` holds kind:3, compact:1, ascii:1 from `text_kind_shift` up. */
static __always_inline void copy_text(struct python_layout *layout, struct python_text *text, char *to, __u32 room, __u64 object)
{
	__u64 length = 0;
	__u32 state = 0, kind;

	text->length = text->kind = 0;
	READ_USER(length, object + layout->text_length);
	READ_USER(state, object + layout->text_state);
	state >>= layout->text_kind_shift & 31;
	kind = state & 7;
	if (kind != 1 && kind != 2 && kind != 4)
		return;
	if (length > room / kind)
		length = room / kind;
	length *= kind;
	/* the verifiers of 6.1 and 6.12 cannot follow the division; no room is larger than this */
	barrier_var(length);
	length &= TEXT_MASK;
	if (!length)
		return;
	if (bpf_probe_read_user(to, length, (void *)(object + (state >> 4 & 1 ? layout->text_ascii_size : layout->text_compact_size))))
		return;
	text->length = length;
	text->kind = kind;
}

static __always_inline bool copy_frame(struct python_layout *layout, struct python_frame *frame, __u64 at)
{
	__u64 code = 0, instruction = 0, object = 0, length = 0;
	__u8 owner = 0;

	if (READ_USER(owner, at + layout->frame_owner))
		return false;
	frame->inner = owner >= FIRST_INNER_OWNER;
	if (frame->inner)
		return true;
	if (READ_USER(code, at + layout->frame_code))
		return false;
	code &= ~7ULL; /* since 3.14 the low bits of a reference are tags */
	if (!code || READ_USER(instruction, at + layout->frame_instruction))
		return false;
	frame->instruction = instruction - (code + layout->code_instructions);
	frame->first_line = 0;
	READ_USER(frame->first_line, code + layout->code_firstlineno);
	READ_USER(object, code + layout->code_qualname);
	copy_text(layout, &frame->name_text, frame->name, PYTHON_NAME_BYTES, object);
	object = 0;
	READ_USER(object, code + layout->code_filename);
	copy_text(layout, &frame->file_text, frame->file, PYTHON_FILE_BYTES, object);
	object = 0;
	frame->lines_length = 0;
	READ_USER(object, code + layout->code_linetable);
	if (!READ_USER(length, object + layout->bytes_length)) {
		if (length > PYTHON_LINES_BYTES)
			length = PYTHON_LINES_BYTES;
		if (!bpf_probe_read_user(frame->lines, length, (void *)(object + layout->bytes_content)))
			frame->lines_length = length;
	}
	return true;
}

struct frame_walk {
	struct album *album;
	__u64 frame;
	__u32 count;
	__u32 reserved;
};

static long step_frames(__u32 index, struct frame_walk *walk)
{
	struct album *album = walk->album;

	if (!walk->frame || !copy_frame(&album->layout, &album->frames[index & (PYTHON_FRAMES - 1)], walk->frame))
		return 1;
	walk->count = index + 1;
	return READ_USER(walk->frame, walk->frame + album->layout.frame_previous) ? 1 : 0;
}

__noinline int emit_python_frames(__u32 pid)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct frame_walk walk = {};
	__u32 zero = 0, level = 0, count, size;
	struct album *album = bpf_map_lookup_elem(&albums, &zero);
	struct python_layout *layout;
	__u64 runtime, thread;

	if (!album)
		return 0;
	runtime = find_runtime(album, task, pid);
	if (!runtime)
		return 0;
	layout = &album->layout;
	thread = find_thread(layout, runtime, namespace_id(BPF_CORE_READ(task, thread_pid), &level));
	if (!thread)
		return 0;
	if (layout->frame_holder)
		READ_USER(thread, thread + layout->frame_holder);
	walk.album = album;
	READ_USER(walk.frame, thread + layout->current_frame);
	bpf_loop(PYTHON_FRAMES, step_frames, &walk, 0);
	count = walk.count;
	if (!count || count > PYTHON_FRAMES)
		return 0;
	set_head(&album->record.head, RECORD_FRAMES, pid);
	album->record.tid = task->pid;
	album->record.count = count;
	size = count * sizeof(struct python_frame);
	barrier_var(size); /* else clang adds with an OR, whose result the verifier cannot bound */
	if (bpf_ringbuf_output(&ring, &album->record, sizeof(album->record) + size, 0))
		count_lost_record();
	return 0;
}
