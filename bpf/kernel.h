/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * The kernel structs we read, cut down to the fields we read. CO-RE moves every access to where the running kernel has the
 * field, so only names and types matter there, not order or size. A struct named x___old describes x on older kernels.
 * libbpf looks through all types of the kernel for each of these, 0.7 ms each: what has kept its layout since 5.8 is read
 * as it lies, without relocation.
 */
#ifndef AGENTSCOPE_KERNEL_H
#define AGENTSCOPE_KERNEL_H

#include <linux/bpf.h>
#include <linux/types.h>
#include <stdbool.h>

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_core_read.h>

#include "machine.h"

/* --- as it lies ------------------------------------------------------------------------------------------------------- */

struct list_head {
	struct list_head *next, *prev;
};

struct file;
struct task_struct;
struct cgroup;

/* its first two members since 2.6 */
struct super_block {
	struct list_head s_list;
	__u32 s_dev;
};

/* include/linux/fdtable.h */
struct fdtable {
	unsigned int max_fds;
	struct file **fd;
};

/* a user ABI: include/uapi/asm-generic/siginfo.h */
struct kernel_siginfo {
	int si_signo, si_errno, si_code;
	int padding;
	union {
		__u64 fault_address;
		struct {
			__u64 call_address;
			int syscall;
		};
	};
};

struct upid {
	int nr;
	void *ns;
};

/* x86 and arm64: struct k_sigaction is one struct sigaction */
struct k_sigaction {
	unsigned long sa_handler, sa_flags, sa_restorer, sa_mask;
};

/* its first member since 4.5: include/linux/cgroup-defs.h */
struct cgroup_subsys_state {
	struct cgroup *cgroup;
};

/* /sys/kernel/tracing/events/syscalls/sys_enter_write/format: a kernel ABI */
struct syscall_entry {
	__u64 of_all_tracepoints;
	long number;
	unsigned long args[6];
};

/* include/linux/net.h: what private_data of a socket's file points to; its first two members since 2.6 */
struct socket {
	int state;
	short type;
};

/* include/linux/uio.h, include/linux/socket.h: user ABIs */
struct iovec {
	__u64 base, length;
};

struct user_msghdr {
	__u64 name, name_length;
	struct iovec *pieces;
	__u64 count;
};

struct seq_file;

/* verified by offset: include/linux/bpf.h */
struct bpf_iter_meta {
	struct seq_file *seq;
	__u64 session_id, seq_num;
};

struct bpf_iter__task {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
};

/* --- relocated ---------------------------------------------------------------------------------------------------------- */

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

typedef struct {
	int counter;
} atomic_t;

typedef struct {
	long counter;
} atomic_long_t;

struct qstr {
	const unsigned char *name;
};

struct inode {
	unsigned short i_mode;
	__u32 i_rdev;
	unsigned long i_ino;
	long long i_size;
	struct super_block *i_sb;
};

struct hlist_bl_node {
	struct hlist_bl_node **pprev;
};

struct dentry {
	struct hlist_bl_node d_hash;
	struct dentry *d_parent;
	struct qstr d_name;
	struct inode *d_inode;
};

struct vfsmount {
	struct dentry *mnt_root;
};

struct mount {
	struct mount *mnt_parent;
	struct dentry *mnt_mountpoint;
	struct vfsmount mnt;
};

struct path {
	struct vfsmount *mnt;
	struct dentry *dentry;
};

struct file {
	struct inode *f_inode;
	struct path f_path;
	void *private_data;
};

struct files_struct {
	struct fdtable *fdt;
};

struct kernfs_node {
	struct kernfs_node *__parent;
	const char *name;
};

/* before 6.15 */
struct kernfs_node___old {
	struct kernfs_node *parent;
};

struct cgroup_root {
	int hierarchy_id;
};

struct cgroup {
	struct kernfs_node *kn;
	struct cgroup_root *root;
};

struct css_set {
	struct cgroup_subsys_state *subsys[1];
	struct cgroup *dfl_cgrp;
};

enum cgroup_subsys_id {
	memory_cgrp_id = 4,
};

struct percpu_counter {
	long long count;
};

/* before 6.2 */
struct mm_rss_stat {
	atomic_long_t count[4];
};

struct mm_struct___old {
	struct mm_rss_stat rss_stat;
};

struct mm_struct {
	atomic_long_t pgtables_bytes;
	unsigned long hiwater_rss;
	unsigned long total_vm;
	unsigned long start_code;
	unsigned long arg_start;
	unsigned long arg_end;
	struct percpu_counter rss_stat[4];
	struct file *exe_file;
};

typedef struct {
	unsigned int val;
} kuid_t;

struct cred {
	kuid_t uid;
};

struct pid {
	unsigned int level;
	struct upid numbers[1];
};

struct sighand_struct {
	struct k_sigaction action[64];
};

struct tty_struct;

struct signal_struct {
	atomic_t live;
	struct list_head thread_head;
	int group_exit_code;
	unsigned int flags;
	struct pid *pids[4];
	struct tty_struct *tty;
	__u64 utime;
	__u64 stime;
	unsigned long maxrss;
	short oom_score_adj;
};

struct sched_info {
	unsigned long long run_delay;
	unsigned long long last_arrival;
};

struct sched_entity {
	__u64 sum_exec_runtime;
};

struct task_io_accounting {
	__u64 rchar;
	__u64 wchar;
};

struct task_struct {
	unsigned int __state;
	unsigned int flags;
	struct sched_entity se;
	struct sched_info sched_info;
	struct mm_struct *mm;
	int exit_state;
	int exit_code;
	int pid;
	int tgid;
	struct task_struct *real_parent;
	struct task_struct *group_leader;
	struct list_head thread_node;
	struct pid *thread_pid;
	__u64 utime;
	__u64 stime;
	unsigned long nvcsw;
	unsigned long nivcsw;
	__u64 start_boottime;
	struct task_io_accounting ioac;
	const struct cred *cred;
	char comm[16];
	struct files_struct *files;
	struct signal_struct *signal;
	struct sighand_struct *sighand;
	struct css_set *cgroups;
};

struct vm_area_struct {
	unsigned long vm_start;
	unsigned long vm_end;
	unsigned long vm_flags;
	unsigned long vm_pgoff;
	struct file *vm_file;
};

struct linux_binprm;

#pragma clang attribute pop

struct bpf_iter_task_vma {
	__u64 __opaque[1];
} __attribute__((aligned(8)));

/* kfuncs since 6.7, absent before: every use is guarded */
extern int bpf_iter_task_vma_new(struct bpf_iter_task_vma *it, struct task_struct *task, __u64 addr) __ksym __weak;
extern struct vm_area_struct *bpf_iter_task_vma_next(struct bpf_iter_task_vma *it) __ksym __weak;
extern void bpf_iter_task_vma_destroy(struct bpf_iter_task_vma *it) __ksym __weak;

#define PF_EXITING 0x00000004         /* include/linux/sched.h */
#define SIGNAL_GROUP_EXIT 0x00000004  /* include/linux/sched/signal.h */
#define VM_EXEC 0x00000004            /* include/linux/mm.h */
#define PIDTYPE_TGID 1                /* enum pid_type, include/linux/pid_types.h */
#define SI_USER 0                     /* include/uapi/asm-generic/siginfo.h */
#define SI_KERNEL 128
#define MM_FILEPAGES 0                /* include/linux/mm_types_task.h */
#define MM_ANONPAGES 1
#define MM_SHMEMPAGES 3

enum {
	SIGHUP = 1, SIGINT = 2, SIGQUIT = 3, SIGILL = 4, SIGTRAP = 5, SIGABRT = 6, SIGBUS = 7, SIGFPE = 8, SIGKILL = 9,
	SIGUSR1 = 10, SIGSEGV = 11, SIGUSR2 = 12, SIGTERM = 15, SIGCHLD = 17, SIGCONT = 18, SIGURG = 23, SIGXCPU = 24,
	SIGWINCH = 28, SIGSYS = 31,
};

#define BIT(n) (1ULL << (n))
/* signals that a program brings upon itself */
#define FAULT_SIGNALS \
	(BIT(SIGSEGV) | BIT(SIGBUS) | BIT(SIGFPE) | BIT(SIGILL) | BIT(SIGTRAP) | BIT(SIGSYS) | BIT(SIGABRT))

#endif
