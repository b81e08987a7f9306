/*
 * Says "ready", waits for a byte on standard input, says the time (CLOCK_BOOTTIME, ns) and ends as its argument says:
 * "exit" with status 3, "fault" by writing to address 0, "wait" not at all (somebody kills it).
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	struct timespec t;
	char text[32], byte;
	int length;

	if (argc != 2 || write(1, "ready\n", 6) != 6)
		return 64;
	alarm(60);
	if (read(0, &byte, 1) != 1)
		return 0;
	if (!strcmp(argv[1], "wait"))
		for (;;)
			pause();
	clock_gettime(CLOCK_BOOTTIME, &t);
	length = snprintf(text, sizeof text, "%lld\n", t.tv_sec * 1000000000LL + t.tv_nsec);
	if (write(1, text, length) != length)
		return 64;
	if (!strcmp(argv[1], "fault"))
		*(volatile int *)0 = 1;
	_exit(3);
}
