/* A quiet agent: ten threads, each of which wakes once a second. Says "ready"; ends when its standard input does. */
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

static void *turn(void *unused)
{
	for (;;)
		sleep(1);
	return unused;
}

int main(void)
{
	pthread_t thread;
	char byte;

	for (int left = 9; left > 0; left--)
		if (pthread_create(&thread, 0, turn, 0))
			return 1;
	puts("ready");
	fflush(stdout);
	return read(0, &byte, 1) > 0;
}
