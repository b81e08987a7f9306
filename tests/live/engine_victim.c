/* Ends in the way that its first argument says: a victim for the tests of the engine. Says "ready" and waits for a line first. */
#define _GNU_SOURCE
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static volatile int *nowhere = (int *)0x18;
static volatile int zero;
static int survived;

static __attribute__((noinline)) void touch(void)
{
	*nowhere = 1;
}

static void *touch_in_thread(void *unused)
{
	prctl(PR_SET_NAME, "worker");
	touch();
	return unused;
}

static void survive(int signal, siginfo_t *info, void *context)
{
	(void)signal, (void)info;
	survived++;
	/* skip the store: movl $1, (%rax) is six bytes with this register */
	((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP] += 6;
}

static void forbid_getppid(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getppid, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { sizeof(code) / sizeof(*code), code };

	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

int main(int argc, char **argv)
{
	const char *way = argc > 1 ? argv[1] : "";
	pthread_t thread;

	alarm(30);
	puts("ready");
	fflush(stdout);
	getchar();
	if (!strcmp(way, "null"))
		touch();
	if (!strcmp(way, "thread")) {
		pthread_create(&thread, 0, touch_in_thread, 0);
		pthread_join(thread, 0);
	}
	if (!strcmp(way, "fpe"))
		return 12345 / zero;
	if (!strcmp(way, "seccomp")) {
		forbid_getppid();
		syscall(SYS_getppid);
	}
	if (!strcmp(way, "handled")) {
		struct sigaction action = { .sa_sigaction = survive, .sa_flags = SA_SIGINFO };

		sigaction(SIGSEGV, &action, 0);
		for (int i = 0; i < 1000; i++)
			__asm__ volatile("xor %%eax, %%eax\n\tmovl $1, (%%rax)" ::: "rax", "memory");
		return survived == 1000 ? 0 : 9;
	}
	if (!strcmp(way, "pdeathsig")) {
		int pipes[2];
		char byte;

		if (pipe(pipes))
			return 9;
		if (!fork()) {
			if (!fork()) {
				prctl(PR_SET_PDEATHSIG, SIGKILL);
				byte = write(pipes[1], "x", 1);
				pause();
			}
			if (read(pipes[0], &byte, 1) != 1)
				return 9;
			return 0;
		}
		usleep(200000);
	}
	return 0;
}
