/* The libc.so.6 of a system that is newer than this one: only its version matters, which is linked in and never found. */
long future(void) { return 0; }
