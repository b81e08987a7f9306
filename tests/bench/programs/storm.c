/*
 * Lets children die at a steady rate, waits for each and says "PID STATUS" with the raw wait status.
 * A child exits with any code, dies of any fatal signal that it sends to itself, faults, or (one in eight) is another program first.
 * usage: storm RATE SECONDS SEED; the last line is "done DEATHS NANOSECONDS"
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const int fatal[] = {SIGHUP, SIGINT, SIGQUIT, SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE, SIGKILL, SIGUSR1, SIGSEGV,
			    SIGUSR2, SIGPIPE, SIGALRM, SIGTERM, SIGXCPU, SIGXFSZ, SIGVTALRM, SIGPROF, SIGIO, SIGSYS, 34, 64};

static void end(int code)
{
	if (code >= 512)
		*(volatile int *)0 = 1;
	if (code >= 256)
		kill(getpid(), fatal[(code - 256) % (int)(sizeof fatal / sizeof *fatal)]);
	_exit(code);
}

static long long now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

int main(int argc, char **argv)
{
	struct rlimit none = {0, 0};
	long long began, due;
	long deaths, count;
	char text[16];

	if (argc == 3 && !strcmp(argv[1], "end"))
		end(atoi(argv[2]));
	if (argc != 4)
		return 64;
	setrlimit(RLIMIT_CORE, &none);
	srandom(atoi(argv[3]));
	count = atol(argv[1]) * atol(argv[2]);
	began = now_ns();
	for (deaths = 0; deaths < count && now_ns() - began < 30000000000LL; deaths++) {
		int code = random() % 2 ? random() % 256 : random() % 16 ? 256 + random() % 256 : 512, status;
		int other = random() % 8 == 0;
		pid_t pid;

		due = began + deaths * 1000000000LL / atol(argv[1]);
		if (due > now_ns()) {
			struct timespec t = {due / 1000000000, due % 1000000000};
			clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, 0);
		}
		snprintf(text, sizeof text, "%d", code);
		pid = vfork();
		if (pid == 0) {
			if (other)
				execl("/proc/self/exe", "storm", "end", text, (char *)0);
			end(code);
		}
		if (pid < 0 || waitpid(pid, &status, 0) != pid)
			return 1;
		printf("%d %d\n", pid, status);
	}
	printf("done %ld %lld\n", deaths, now_ns() - began);
	return 0;
}
