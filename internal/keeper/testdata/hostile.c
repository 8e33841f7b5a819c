/*
 * hostile KIND [FIFO]: a service that tries to leave something behind. Every
 * kind writes one line to standard output once it is set up. All of its
 * processes keep standard output open, which is how a test knows that they are
 * gone.
 *
 * With FIFO it tells there "run N", or "overlap N" when a process of another run
 * is there still, and "up N" once what it leaves behind is set up too. The name
 * of every process is then "run N", whatever else it does to hide.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static void stay(void) { for (;;) pause(); }

static void rest(long us) {
	struct timespec t = { us / 1000000, us % 1000000 * 1000 };
	nanosleep(&t, NULL);
}

static int fifo = -1;
static char run[12] = "";

static void tell(const char *what) {
	if (fifo >= 0)
		dprintf(fifo, "%s %s\n", what, run);
}

static void name(const char *number) {
	char name[16];
	snprintf(run, sizeof run, "%s", number);
	snprintf(name, sizeof name, "run %s", run);
	prctl(PR_SET_NAME, name);
}

/* The lock is held as long as one process has the descriptor that it inherited. */
static void begin(const char *path) {
	const char *number = getenv("LOCALD_RUN");
	name(number ? number : "0");
	fifo = open(path, O_WRONLY);
	if (fifo < 0)
		_exit(8);
	tell(flock(fifo, LOCK_EX | LOCK_NB) ? "overlap" : "run");
}

static void up(void) {
	puts("up");
	fflush(stdout);
	if (fifo >= 0)
		rest(20000);
	tell("up");
}

/* left ends a main process that leaves something behind. */
static int left(void) {
	up();
	if (fifo >= 0)
		rest(30000);
	return 0;
}

/* becomes_daemon returns 1 in a process that has lost its parent and session. */
static int becomes_daemon(void) {
	pid_t p = fork();
	if (p == 0) {
		setsid();
		if (fork() == 0)
			return 1;
		_exit(0);
	}
	waitpid(p, NULL, 0);
	return 0;
}

static void overwrite_environment(void) {
	for (char **e = environ; *e; e++)
		memset(*e, 'x', strlen(*e));
}

static void again(const char *kind) {
	char *argv[] = { "hostile", (char *)kind, run, NULL }, *envp[] = { NULL };
	execve("/proc/self/exe", argv, envp);
	_exit(9);
}

static void daemonise_on_term(int sig) {
	(void)sig;
	if (becomes_daemon()) {
		signal(SIGTERM, SIG_IGN);
		stay();
	}
	_exit(0);
}

static void hop(long us) {
	if (fork() != 0)
		return;
	signal(SIGTERM, SIG_IGN);
	setsid();
	overwrite_environment();
	for (time_t end = time(NULL) + 40; time(NULL) < end;) {
		if (us)
			rest(us);
		if (fork() > 0)
			_exit(0);
	}
	_exit(0);
}

static void storm(void) {
	signal(SIGCHLD, SIG_IGN);
	for (int n = 0;; n++) {
		if (n < 400 && fork() == 0) {
			setsid();
			signal(SIGTERM, SIG_IGN);
			stay();
		}
		rest(20000);
	}
}

/* bomb forks as fast as it can, in all of its processes, until it cannot. */
static void bomb(void) {
	signal(SIGTERM, SIG_IGN);
	signal(SIGCHLD, SIG_IGN);
	for (;;)
		fork();
}

int main(int argc, char **argv) {
	const char *kind = argc > 1 ? argv[1] : "";
	signal(SIGCHLD, SIG_DFL);
	if (argc > 2 && !strcmp(kind, "deaf")) name(argv[2]);
	else if (argc > 2) begin(argv[2]);
	if (!strcmp(kind, "deaf")) { signal(SIGTERM, SIG_IGN); stay(); }
	else if (!strcmp(kind, "plain")) { if (fork() == 0) stay(); }
	else if (!strcmp(kind, "doublefork")) { if (fork() == 0) { if (fork() == 0) stay(); _exit(0); } wait(NULL); }
	else if (!strcmp(kind, "sibling")) { if (syscall(SYS_clone, CLONE_PARENT | SIGCHLD, 0, 0, 0, 0) == 0) { setsid(); stay(); } }
	else if (!strcmp(kind, "setsid")) { if (fork() == 0) { setsid(); stay(); } }
	else if (!strcmp(kind, "daemon")) { if (becomes_daemon()) stay(); }
	else if (!strcmp(kind, "daemon-exit")) { if (becomes_daemon()) stay(); return left(); }
	else if (!strcmp(kind, "clearenv")) { if (becomes_daemon()) again("deaf"); }
	else if (!strcmp(kind, "title")) { if (becomes_daemon()) { overwrite_environment(); stay(); } }
	else if (!strcmp(kind, "nodump")) { if (becomes_daemon()) { prctl(PR_SET_DUMPABLE, 0); stay(); } }
	else if (!strcmp(kind, "ignoreterm")) { signal(SIGTERM, SIG_IGN); if (fork() == 0) stay(); }
	else if (!strcmp(kind, "onterm")) signal(SIGTERM, daemonise_on_term);
	else if (!strcmp(kind, "stopped")) { if (fork() == 0) { setsid(); raise(SIGSTOP); stay(); } }
	else if (!strcmp(kind, "holdout")) { if (becomes_daemon()) { signal(SIGTERM, SIG_IGN); signal(SIGHUP, SIG_IGN); stay(); } return left(); }
	else if (!strcmp(kind, "subreaper")) {
		if (fork() == 0) {
			prctl(PR_SET_CHILD_SUBREAPER, 1);
			setsid();
			if (becomes_daemon()) again("deaf");
			stay();
		}
	}
	else if (!strcmp(kind, "storm")) { up(); storm(); }
	else if (!strcmp(kind, "memory")) { volatile char *p = malloc(200 << 20); for (long i = 0; i < 200 << 20; i += 4096) p[i] = 1; return 0; }
	else if (!strcmp(kind, "bomb")) { up(); bomb(); }
	else if (!strcmp(kind, "hop50")) hop(20000);
	else if (!strcmp(kind, "hop1000")) hop(1000);
	else if (!strcmp(kind, "hop")) hop(0);
	else if (!strcmp(kind, "root")) {
		if (becomes_daemon()) {
			int failed = setuid(0);
			signal(SIGTERM, SIG_IGN);
			printf("%s %d\n", failed || getuid() ? "nobody" : "root", getpid());
			fflush(stdout);
			stay();
		}
		stay();
	}
	else if (!strcmp(kind, "unmarked")) {
		struct rlimit none = { 0, 0 };
		if (becomes_daemon()) { setrlimit(RLIMIT_LOCKS, &none); again("deaf"); }
	}
	else return 2;
	up();
	stay();
}
