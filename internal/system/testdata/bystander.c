/*
 * bystander: what stands around locald in a test.
 *
 *	canary            an innocent process: it prints every signal that it gets,
 *	                  and ends when its standard input does, with 1 if there was one
 *	take UID PID...   a canary at each of these numbers, each leading a session and
 *	                  a group of its own; the numbers that were not free are printed
 *	init COMMAND...   the first process of a PID namespace: it mounts /proc, runs
 *	                  the command and reaps whatever is given to it
 *	as UID NPROC TASKS COMMAND...
 *	                  runs the command as an ordinary user who may have so many
 *	                  processes, in the cgroup that has this file
 *	bomb [HOW...]     forks without end; "deaf": SIGTERM does nothing; "apart":
 *	                  each process in a session of its own
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/sched.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void check(int result, const char *what) {
	if (result < 0) {
		dprintf(1, "error: %s: %s\n", what, strerror(errno));
		_exit(3);
	}
}

static void becomes(uid_t uid) {
	check(setgroups(0, NULL), "setgroups");
	check(setresgid(uid, uid, uid), "setresgid");
	check(setresuid(uid, uid, uid), "setresuid");
}

/* The signals are blocked already. */
static int canary(void) {
	sigset_t all;
	sigfillset(&all);
	int signals = signalfd(-1, &all, 0), touched = 0;
	check(signals, "signalfd");
	dprintf(1, "ready %d\n", getpid());
	for (;;) {
		struct pollfd fds[] = { { signals, POLLIN, 0 }, { 0, POLLIN, 0 } };
		check(poll(fds, 2, -1), "poll");
		if (fds[0].revents) {
			struct signalfd_siginfo s;
			if (read(signals, &s, sizeof s) == sizeof s) {
				dprintf(1, "touched %d by signal %u of %u\n", getpid(), s.ssi_signo, s.ssi_pid);
				touched = 1;
			}
		} else if (fds[1].revents)
			return touched;
	}
}

static void block(void) {
	sigset_t all;
	sigfillset(&all);
	check(sigprocmask(SIG_SETMASK, &all, NULL), "sigprocmask");
}

static int take(uid_t uid, int count, char **numbers) {
	block();
	for (int i = 0; i < count; i++) {
		pid_t wanted = atoi(numbers[i]);
		struct clone_args args;
		memset(&args, 0, sizeof args);
		args.exit_signal = SIGCHLD;
		args.set_tid = (uintptr_t)&wanted;
		args.set_tid_size = 1;
		pid_t pid = syscall(SYS_clone3, &args, sizeof args);
		if (pid == 0) {
			setsid();
			becomes(uid);
			_exit(canary());
		}
		if (pid < 0 && errno != EEXIST)
			check(-1, "clone3");
		if (pid < 0)
			dprintf(1, "refused %d\n", wanted);
	}
	dprintf(1, "taken\n");
	int status, result = 0;
	while (wait(&status) > 0)
		if (!WIFEXITED(status)) {
			dprintf(1, "touched: one ended by signal %d\n", WTERMSIG(status));
			result = 1;
		} else if (WEXITSTATUS(status))
			result = WEXITSTATUS(status);
	return result;
}

static int init(char **command) {
	check(mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL), "mount /");
	check(mount("proc", "/proc", "proc", 0, NULL), "mount /proc");
	pid_t main = fork();
	check(main, "fork");
	if (main == 0) {
		execv(command[0], command);
		check(-1, command[0]);
	}
	for (int status; ;) {
		pid_t pid = wait(&status);
		if (pid == main)
			return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
	}
}

static int as(uid_t uid, rlim_t most, const char *tasks, char **command) {
	struct rlimit limit = { most, most };
	int fd = open(tasks, O_WRONLY);
	check(fd, tasks);
	check(write(fd, "0", 1), tasks);
	close(fd);
	check(setrlimit(RLIMIT_NPROC, &limit), "setrlimit");
	becomes(uid);
	execv(command[0], command);
	check(-1, command[0]);
	return 3;
}

static _Noreturn void bomb(char **how) {
	int apart = 0;
	signal(SIGCHLD, SIG_IGN);
	for (; *how; how++)
		if (!strcmp(*how, "deaf"))
			signal(SIGTERM, SIG_IGN);
		else
			apart = 1;
	for (;;) {
		pid_t pid = fork();
		if (pid == 0 && apart)
			setsid();
		if (pid < 0)
			usleep(2000);
	}
}

int main(int argc, char **argv) {
	const char *mode = argc > 1 ? argv[1] : "";
	if (!strcmp(mode, "canary")) {
		block();
		return canary();
	}
	if (!strcmp(mode, "take") && argc > 3)
		return take(atoi(argv[2]), argc - 3, argv + 3);
	if (!strcmp(mode, "init") && argc > 2)
		return init(argv + 2);
	if (!strcmp(mode, "as") && argc > 5)
		return as(atoi(argv[2]), atoi(argv[3]), argv[4], argv + 5);
	if (!strcmp(mode, "bomb"))
		bomb(argv + 2);
	return 2;
}
