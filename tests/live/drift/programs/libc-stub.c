/* The libc.so.6 of a system that is newer than this one: only its version matters, which is linked in and never found.
 *   -DWHOLE  with all that agent.c asks of it
 */
long future(void) { return 0; }
#ifdef WHOLE
char stdin[8], stdout[8];
void __libc_start_main(void) {}
void puts(void) {}
void alarm(void) {}
void fflush(void) {}
void fgets(void) {}
void strncmp(void) {}
#endif
