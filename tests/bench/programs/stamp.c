/* stamp FILE PROGRAM ARGUMENTS...: adds a line with the time (CLOCK_BOOTTIME, ns) to FILE, then becomes PROGRAM: when it was begun. */
#include <fcntl.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	struct timespec now;
	int file;

	if (argc < 3)
		return 64;
	file = open(argv[1], O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
	clock_gettime(CLOCK_BOOTTIME, &now);
	dprintf(file, "%lld\n", now.tv_sec * 1000000000LL + now.tv_nsec);
	execvp(argv[2], argv + 2);
	return 127;
}
