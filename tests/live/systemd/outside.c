/*
 * systemctl for whoever is outside the lab: runs the lab's own inside, and turns the pids of `show` into those of outside.
 *   outside ARGUMENTS...   with LAB, the pid of the lab's systemd here outside, compiled in: its caller's environment is a clean one
 * The lab's systemd must be the first process of a pid namespace, so it counts from 1; probes and /proc count as the machine does.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define STR(x) #x
#define TEXT(x) STR(x)

/* the pid outside of the process that the lab calls `inner`; 0 where there is none */
static long outer_of(long inner)
{
	char path[64], line[256];
	struct stat lab, each;
	struct dirent *entry;
	long found = 0;
	DIR *proc = opendir("/proc");

	if (!inner || !proc || stat("/proc/" TEXT(LAB) "/ns/pid", &lab))
		return 0;
	while (!found && (entry = readdir(proc))) {
		long pid = atol(entry->d_name), outer, last;
		FILE *status;

		snprintf(path, sizeof(path), "/proc/%ld/ns/pid", pid);
		if (pid <= 0 || stat(path, &each) || each.st_ino != lab.st_ino)
			continue;
		snprintf(path, sizeof(path), "/proc/%ld/status", pid);
		status = fopen(path, "r");
		while (status && fgets(line, sizeof(line), status))
			if (sscanf(line, "NSpid: %ld %ld", &outer, &last) == 2 && last == inner)
				found = outer;
		if (status)
			fclose(status);
	}
	closedir(proc);
	return found;
}

static int inside(char **argv)
{
	static const char *const spaces[] = { "mnt", "uts", "ipc", "cgroup", "pid" };
	int opened[5], status;
	char path[64];
	pid_t child;

	for (int i = 0; i < 5; i++) {
		snprintf(path, sizeof(path), "/proc/" TEXT(LAB) "/ns/%s", spaces[i]);
		opened[i] = open(path, O_RDONLY | O_CLOEXEC);
	}
	for (int i = 0; i < 5; i++)
		if (setns(opened[i], 0))
			return 126;
	child = fork(); /* only a child is in the pid namespace */
	if (!child) {
		execv("/usr/bin/systemctl", argv);
		_exit(127);
	}
	waitpid(child, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

int main(int argc, char **argv)
{
	char line[4096];
	int ends[2], status;
	long inner;
	FILE *said;
	pid_t child;

	if (pipe(ends))
		return 126;
	child = fork();
	if (!child) {
		dup2(ends[1], 1);
		close(ends[0]);
		close(ends[1]);
		_exit(inside(argv));
	}
	close(ends[1]);
	said = fdopen(ends[0], "r");
	while (fgets(line, sizeof(line), said)) {
		if (sscanf(line, "MainPID=%ld", &inner) == 1)
			printf("MainPID=%ld\n", outer_of(inner));
		else if (sscanf(line, "ExecMainPID=%ld", &inner) == 1)
			printf("ExecMainPID=%ld\n", outer_of(inner));
		else
			fputs(line, stdout);
	}
	waitpid(child, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}
