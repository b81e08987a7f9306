/*
 * Starts COUNT children that end in random ways, waits for each and says "PID STATUS", with the raw wait status.
 * A child: exits with any code, dies of any fatal signal, ends from a worker thread, lets its first thread end first,
 * is started by vfork, or replaces its program from a worker thread. usage: dice COUNT SEED
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static const int fatal[] = {SIGHUP,  SIGINT,  SIGQUIT, SIGILL,	SIGTRAP, SIGABRT, SIGBUS,    SIGFPE,  SIGKILL, SIGUSR1, SIGSEGV, SIGUSR2,
			    SIGPIPE, SIGALRM, SIGTERM, SIGXCPU, SIGXFSZ, SIGVTALRM, SIGPROF, SIGIO, SIGSYS, 34, 64};

static void end(int code)
{
	if (code >= 256)
		kill(getpid(), fatal[(code - 256) % (int)(sizeof fatal / sizeof *fatal)]);
	_exit(code);
}

static void *end_from_thread(void *code)
{
	usleep(1000);
	end((int)(long)code);
	return 0;
}

static void *exec_from_thread(void *code)
{
	char text[16];
	snprintf(text, sizeof text, "%d", (int)(long)code);
	execl("/proc/self/exe", "dice", "end", text, (char *)0);
	return 0;
}

static void child(int way, int code)
{
	pthread_t thread;

	alarm(20);
	switch (way) {
	case 0:
		end(code);
	case 1: /* a worker ends the process */
		pthread_create(&thread, 0, end_from_thread, (void *)(long)code);
		pthread_join(thread, 0);
		_exit(99);
	case 2: /* the first thread goes first, with a status of its own that must not count */
		pthread_create(&thread, 0, end_from_thread, (void *)(long)code);
		syscall(SYS_exit, 77);
	default: /* a worker becomes the process */
		pthread_create(&thread, 0, exec_from_thread, (void *)(long)code);
		pthread_join(thread, 0);
		_exit(98);
	}
}

int main(int argc, char **argv)
{
	char code_text[16];
	int status;

	if (argc == 3 && !strcmp(argv[1], "end"))
		end(atoi(argv[2]));
	if (argc != 3)
		return 64;
	alarm(120);
	srandom(atoi(argv[2]));
	puts("ready");
	fflush(stdout);
	getchar();
	for (int left = atoi(argv[1]); left > 0; left--) {
		int way = random() % 5, code = random() % 2 ? random() % 256 : 256 + random() % 1000;
		pid_t pid;

		snprintf(code_text, sizeof code_text, "%d", code);
		pid = way == 4 ? vfork() : fork();
		if (pid == 0) {
			if (way == 4) {
				execl("/proc/self/exe", "dice", "end", code_text, (char *)0);
				_exit(97);
			}
			child(way, code);
		}
		waitpid(pid, &status, 0);
		printf("%d %d\n", pid, status);
	}
	puts("done");
	fflush(stdout);
	return 0;
}
