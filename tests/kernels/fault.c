/* Writes to address 0, two calls deep. */
#include <stdlib.h>

__attribute__((noinline)) void store(volatile int *where)
{
	*where = 1;
}

int main(int argc, char **argv)
{
	store(argc > 1 ? (int *)argv[1] : NULL);
	return 0;
}
