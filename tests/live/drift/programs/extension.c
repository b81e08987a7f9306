/* A Python module over libfoo: `extension.add()`. What it needs of Python's interface is declared here, so that no header is. */
#include <stddef.h>

typedef struct { long references; void *type; } object_t;
typedef object_t *(*function_t)(object_t *, object_t *);
typedef struct { const char *name; function_t call; int flags; const char *doc; } method_t;
typedef struct {
  struct { object_t object; void *start; long index; object_t *copy; } base;
  const char *name, *doc;
  long size;
  method_t *methods;
  void *slots, *traverse, *clear, *free;
} module_t;
object_t *PyModule_Create2(module_t *module, int version);
object_t *PyLong_FromLong(long value);

typedef struct { long count; long total; } foo_t;
long foo_add(foo_t *foo);
#ifdef WORK
long WORK(void);
#endif

static foo_t foo = {.count = 0, .total = 7};

static object_t *add(object_t *self, object_t *none) {
  long got = foo_add(&foo);
#ifdef WORK
  got += WORK();
#endif
  return PyLong_FromLong(got + (self == none));
}

static method_t methods[] = {{"add", add, 4 /* METH_NOARGS */, NULL}, {NULL}};
static module_t module = {.base = {.object = {.references = 1}}, .name = "extension", .size = -1, .methods = methods};

object_t *PyInit_extension(void) { return PyModule_Create2(&module, 1013 /* PYTHON_API_VERSION, modsupport.h */); }
