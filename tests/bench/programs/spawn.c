/* Spawns /bin/true again and again. Says the microseconds of one, start to wait, over all of them. */
#define _GNU_SOURCE
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>

int main(int argc, char **argv)
{
	long count = argc > 1 ? atol(argv[1]) : 500;
	char *const command[] = {"/bin/true", 0}, *const environment[] = {0};
	struct timespec a, b;

	clock_gettime(CLOCK_MONOTONIC, &a);
	for (long left = count; left > 0; left--) {
		pid_t pid;
		int status;

		if (posix_spawn(&pid, command[0], 0, 0, command, environment) || waitpid(pid, &status, 0) != pid || status)
			return 1;
	}
	clock_gettime(CLOCK_MONOTONIC, &b);
	printf("%.2f\n", ((b.tv_sec - a.tv_sec) * 1e6 + (b.tv_nsec - a.tv_nsec) / 1e3) / count);
	return 0;
}
