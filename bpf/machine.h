/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * What differs between the processors that the probes are built for: the registers that user space had when it entered the
 * kernel, and the numbers of system calls. agentscope/machines.py is the same for Python.
 */
#ifndef AGENTSCOPE_MACHINE_H
#define AGENTSCOPE_MACHINE_H

#include "event.h"

#if defined(__TARGET_ARCH_x86)

/* arch/x86/include/asm/ptrace.h */
struct pt_regs {
	unsigned long r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di, orig_ax, ip, cs, flags, sp, ss;
};

#define CALL_NUMBER(regs) ((__s32)(regs)->orig_ax)
#define CALL_ARGUMENT_0(regs) ((regs)->di)
#define CALL_ARGUMENT_1(regs) ((regs)->si)
#define CALL_ARGUMENT_2(regs) ((regs)->dx)
#define CALL_ARGUMENT_3(regs) ((regs)->r10)
#define CALL_ARGUMENT_4(regs) ((regs)->r8)
#define CALL_ARGUMENT_5(regs) ((regs)->r9)
#define INSTRUCTION_POINTER(regs) ((regs)->ip)
#define IS_32_BIT(regs) ((regs)->cs == 0x23) /* __USER32_CS, arch/x86/include/asm/segment.h */

#define STACK_POINTER_AT 7
#define INSTRUCTION_POINTER_AT 16

enum { /* arch/x86/entry/syscalls/syscall_64.tbl */
	CALL_READ = 0, CALL_WRITE = 1, CALL_READV = 19, CALL_WRITEV = 20, CALL_CONNECT = 42, CALL_RECVFROM = 45,
	CALL_RECVMSG = 47, CALL_GETSOCKOPT = 55,
};

/* by DWARF number: System V ABI, AMD64 supplement, figure 3.36: rax rdx rcx rbx rsi rdi rbp rsp r8..r15 rip */
static __always_inline void copy_registers(__u64 *to, struct pt_regs *regs)
{
	to[0] = regs->ax;
	to[1] = regs->dx;
	to[2] = regs->cx;
	to[3] = regs->bx;
	to[4] = regs->si;
	to[5] = regs->di;
	to[6] = regs->bp;
	to[7] = regs->sp;
	to[8] = regs->r8;
	to[9] = regs->r9;
	to[10] = regs->r10;
	to[11] = regs->r11;
	to[12] = regs->r12;
	to[13] = regs->r13;
	to[14] = regs->r14;
	to[15] = regs->r15;
	to[16] = regs->ip;
}

#elif defined(__TARGET_ARCH_arm64)

/* arch/arm64/include/asm/ptrace.h, little-endian, as far as it has been the same since 4.14 */
struct pt_regs {
	__u64 regs[31], sp, pc, pstate;
	__u64 orig_x0; /* x0 as it was on entry: at the end of a call x0 has the result */
	__s32 syscallno; /* -1: not in a call */
	__u32 unused;
};

#define CALL_NUMBER(regs) ((regs)->syscallno)
#define CALL_ARGUMENT_0(regs) ((regs)->orig_x0)
#define CALL_ARGUMENT_1(regs) ((regs)->regs[1])
#define CALL_ARGUMENT_2(regs) ((regs)->regs[2])
#define CALL_ARGUMENT_3(regs) ((regs)->regs[3])
#define CALL_ARGUMENT_4(regs) ((regs)->regs[4])
#define CALL_ARGUMENT_5(regs) ((regs)->regs[5])
#define INSTRUCTION_POINTER(regs) ((regs)->pc)
#define IS_32_BIT(regs) ((regs)->pstate & 0x10) /* PSR_MODE32_BIT, arch/arm64/include/asm/ptrace.h */

#define STACK_POINTER_AT 31
#define INSTRUCTION_POINTER_AT 32

enum { /* include/uapi/asm-generic/unistd.h */
	CALL_READ = 63, CALL_WRITE = 64, CALL_READV = 65, CALL_WRITEV = 66, CALL_CONNECT = 203, CALL_RECVFROM = 207,
	CALL_GETSOCKOPT = 209, CALL_RECVMSG = 212,
};

/* by DWARF number: DWARF for the Arm 64-bit Architecture, 4.1: x0..x30, sp, pc; they lie in this order */
static __always_inline void copy_registers(__u64 *to, struct pt_regs *regs)
{
	bpf_probe_read_kernel(to, REGISTERS * sizeof(*to), regs);
}

#else
#error "the probes are for x86-64 and arm64"
#endif

#endif
