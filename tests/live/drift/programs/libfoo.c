/* A library in several builds, each of which breaks its user in one way, or in none:
 *   -DPOINTER  its structure changed behind an unchanged soname: a user built for the old one crashes in here
 *   -DNO_OLD   foo_old() is gone        -DNEWER  foo_new() came        -DPATCHED  other code, the same interface
 *   -DFAR      foo_far() stands 256 KiB behind the rest, so that it is read only when it is called
 *   -DMOVED    everything stands 16 KiB later than before, behind bytes that no program may run (hlt)
 *   -DPARTS    foo_parts() loads libfoo-parts.so from its own folder when it is called; -DTABLE=2 is how that looks later
 *   -DFUTURE   it needs a symbol of a C library that does not exist yet (see libc-stub.c)
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>

#ifdef POINTER
typedef struct { long count; long *total; } foo_t;
#else
typedef struct { long count; long total; } foo_t;
#endif

/* what libfoo-parts.so gives to the libfoo of its own version */
#if TABLE == 2
typedef struct { long length; const char *name; } table_t;
#else
typedef struct { const char *name; long length; } table_t;
#endif

#ifdef IS_PARTS
table_t foo_table = {.name = "parts", .length = 5};
#else

#ifdef FUTURE
long future(void);
#endif
#ifdef MOVED
__asm__(".text\n.skip 16384, 0xf4\n");
#endif

long foo_add(foo_t *foo) {
#ifdef FUTURE
  if (foo->count < 0) return future();
#endif
#ifdef PATCHED
  if (foo->count == 77) return 0;
#endif
  foo->count++;
#ifdef POINTER
  *foo->total += 1;
  return *foo->total;
#else
  return ++foo->total;
#endif
}

#ifndef NO_OLD
long foo_old(void) { return 1; }
#endif
#ifdef NEWER
long foo_new(void) { return 2; }
#endif

#ifdef PARTS
long foo_parts(void) {
  void *parts = dlopen("$ORIGIN/libfoo-parts.so", RTLD_NOW);
  table_t *table = parts ? dlsym(parts, "foo_table") : NULL;
  long sum = 0;
  if (table == NULL) return -1;
  for (const volatile char *at = table->name; *at; at++) sum += *at;
  return sum;
}
#endif

#ifdef FAR
__asm__(".text\n.skip 262144, 0x90\n");
__attribute__((noinline)) long foo_far(void) { return 3; }
#endif
#endif
