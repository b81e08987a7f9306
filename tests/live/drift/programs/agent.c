/* An agent that works in libfoo each time it is told "go" and ends well when told "quit".
 *   -DWORK=foo_old  what it calls      -DEAGER  it works once before it is ready      -DOWN  its work ends in a bug of its own
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

typedef struct { long count; long total; } foo_t;

long foo_add(foo_t *foo);
long foo_old(void), foo_far(void), foo_parts(void), foo_new(void), future(void);

static foo_t foo = {.count = 0, .total = 7};

static void work(void) {
  long got = foo_add(&foo);
#ifdef WORK
  got += WORK();
#endif
#ifdef OWN
  *(volatile long *)0 = got;
#endif
#ifdef LINES /* it writes what it was told to and leaves with that status */
  fputs(LINES, stderr);
  fflush(stderr);
  _exit(3);
#endif
#ifdef OWN_FILE /* a file of its own, shorter than it thinks */
  int file = open("notes.bin", O_RDWR | O_CREAT | O_TRUNC, 0600);
  volatile char *notes = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  notes[4096] = (char)got;
#endif
  if (got == 0x7fffffff) puts("never");
}

int main(void) {
  char line[80];
  alarm(50);
#ifdef EAGER
  work();
#endif
  puts("ready");
  fflush(stdout);
  while (fgets(line, sizeof line, stdin) != NULL && strncmp(line, "quit", 4) != 0) {
    work();
    puts("done");
    fflush(stdout);
  }
  return 0;
}
