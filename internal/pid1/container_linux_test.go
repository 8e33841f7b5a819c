package pid1

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestEndsAsItsProgramEnds(t *testing.T) {
	everybody(t, func(t *testing.T, w who) {
		w.newBox(t, "echo $GREETING; exit 7").want("hello\n", 7)
		w.newBox(t, "exec true").want("", 0)
		w.newBox(t, "kill -KILL $$").want("", 137)
		w.newBox(t, "kill -TERM $$").want("", 143)
	})
}

// What is written over an image is deleted with the container, so the disk has
// no part in it.
func TestNothingIsSynced(t *testing.T) {
	everybody(t, func(t *testing.T, w who) {
		w.newBox(t, `while read -r what at kind options rest; do case "$at,$options" in /,*volatile*) echo "$kind";; esac; done </proc/mounts`).want("overlay\n", 0)
	})
}

func TestWhoItIs(t *testing.T) {
	everybody(t, func(t *testing.T, w who) {
		b := w.newBox(t, `hostname; cat /etc/hostname; cat /etc/hosts; cat /etc/resolv.conf; echo "$HOME $HOSTNAME $PATH"; pwd; umask; stat -c %a /; cat /proc/sys/kernel/hostname; echo $$ | grep -c '^1$'`)
		b.spec.Address = "10.1.2.3"
		b.spec.Hosts = []HostsEntry{{"10.1.2.4", []string{"db", "db.local"}}}
		b.spec.Resolv = "nameserver 10.1.2.1\n"
		b.spec.Workdir = "/srv/a/b"
		b.spec.User.Home = "/srv"
		if err := os.Chmod(filepath.Join(b.base, "layer"), 0o751); err != nil {
			t.Fatal(err)
		}
		b.want(lines(
			"web", "web",
			"127.0.0.1\tlocalhost", "::1\tlocalhost ip6-localhost ip6-loopback", "10.1.2.3\tweb", "10.1.2.4\tdb db.local",
			"nameserver 10.1.2.1",
			"/srv web "+defaultPath, "/srv/a/b", "0022", "751", "web", "0"), 1)
	})
}

func TestEnvironmentIsWhatTheProcessHad(t *testing.T) {
	everybody(t, func(t *testing.T, w who) {
		b := w.newBox(t, "")
		b.spec.Args = []string{"env", "-0"}
		b.env = []string{"PATH=/bin", "HOME=/x", "HOSTNAME=y", "LATIN=\xe9", "LINES=a\nb", "EMPTY="}
		b.want(strings.Join(b.env, "\x00")+"\x00", 0)
	})
}

func TestSignalsReachTheProgram(t *testing.T) {
	everybody(t, func(t *testing.T, w who) {
		b := w.newBox(t, "exec /self signals").start()
		if got := b.line(); got != "ready" {
			t.Fatal(got)
		}
		b.ready()
		const realTime = 37 // asks systemd to halt
		for _, sig := range []syscall.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGUSR1, unix.SIGUSR2, unix.SIGWINCH, unix.SIGCONT, unix.SIGTSTP, realTime, unix.SIGQUIT} {
			b.signal(sig)
			if got := b.line(); got != fmt.Sprint(int(sig)) {
				t.Errorf("%v: it got %s", sig, got)
			}
		}
		if out, code := b.output(); out != "" || code != 9 {
			t.Error(out, code)
		}
	})
}

// A daemon that a script has started in the background ignores interrupts.
func TestIgnoredSignalsAreNotInherited(t *testing.T) {
	everybody(t, func(t *testing.T, w who) {
		b := w.newBox(t, "kill -INT $$; kill -HUP $$; kill -QUIT $$; echo still here")
		b.before = []string{"sh", "-c", `trap "" INT HUP QUIT TERM; exec "$0" "$@"`}
		b.want("", 130)
	})
}

func TestASignalWhileItIsMadeReachesTheProgram(t *testing.T) {
	everybody(t, func(t *testing.T, w who) {
		b := w.newBox(t, "exec sleep 1000")
		pipe := b.waitForNetwork()
		b.start()
		hold, err := os.OpenFile(pipe, os.O_WRONLY, 0) // returns when the outer process reads
		if err != nil {
			t.Fatal(err)
		}
		b.signal(unix.SIGTERM)
		hold.Close()
		if _, code := b.output(); code != 143 {
			t.Errorf("status %d; it says %s", code, b.stderr.String())
		}
	})
}

func TestNothingSurvivesTheOuterProcess(t *testing.T) {
	everybody(t, func(t *testing.T, w who) {
		b := w.newBox(t, `trap "" TERM HUP INT; setsid sleep 1000 & (setsid sleep 1000 &); echo ready; wait; sleep 1000`).start()
		if got := b.line(); got != "ready" {
			t.Fatal(got)
		}
		b.ready()
		b.signal(unix.SIGKILL)
		if out, _ := b.output(); out != "" { // ends when nobody has the pipe
			t.Error(out)
		}
	})
}

func TestNothingSurvivesTheProgram(t *testing.T) {
	everybody(t, func(t *testing.T, w who) {
		w.newBox(t, `trap "" TERM HUP INT; setsid sleep 1000 & exit 3`).want("", 3)
	})
}

func TestErrorsBeforeTheProgram(t *testing.T) {
	everybody(t, func(t *testing.T, w who) {
		for _, test := range []struct {
			name string
			set  func(*box)
			kind Kind
			code int
			says string
		}{
			{"not in PATH", func(b *box) { b.spec.Args = []string{"nope"} }, NotFound, 127, "command nope: not found in the container's PATH"},
			{"not there", func(b *box) { b.spec.Args = []string{"/srv/nope"} }, NotFound, 127, "command /srv/nope: not there in the container"},
			{"not executable", func(b *box) { b.spec.Args = []string{"/etc/hosts"} }, NotExecutable, 126, "command /etc/hosts: is not executable"},
			{"a directory", func(b *box) { b.spec.Args = []string{"/srv"} }, NotExecutable, 126, "command /srv: is a directory"},
			{"no interpreter", func(b *box) { b.program("#!/bin/nope\n"); b.spec.Args = []string{"/srv/it"} }, NotExecutable, 126, "command /srv/it: its interpreter, or the loader of its libraries, is not in the container"},
			{"no program", func(b *box) { b.program("hello"); b.spec.Args = []string{"/srv/it"} }, NotExecutable, 126, "command /srv/it: is not a program for this machine, and no script with a first line #!"},
			{"the directory is a file", func(b *box) { b.program("hello"); b.spec.Workdir = "/srv/it" }, WorkdirFailed, 125, "working directory /srv/it: is not a directory of the container"},
			{"a mount that is not there", func(b *box) { b.spec.Mounts = append(b.spec.Mounts, Mount{Source: "/nope/a", Target: "/a"}) }, MountFailed, 125, "mount of /nope/a at /a: /nope/a does not exist"},
			{"a directory on a file", func(b *box) {
				b.program("")
				b.spec.Mounts = append(b.spec.Mounts, Mount{Source: b.base, Target: "/srv/it"})
			}, MountFailed, 125, "mount of BASE at /srv/it: one of them is a directory, the other is a file"},
			{"a layer that is not there", func(b *box) { b.spec.Layers = []string{"/nope"} }, MountFailed, 125, "layer /nope: no such file or directory"},
			{"a port that is taken", func(b *box) { b.spec.Network = json.RawMessage(`{"taken":true}`) }, PortTaken, 125, "network of the container: 127.0.0.1:5432: address already in use"},
			{"no command", func(b *box) { b.spec.Args = nil }, Invalid, 125, "spec: the command is empty"},
			{"a host with two lines", func(b *box) { b.spec.Hosts = []HostsEntry{{"1.2.3.4", []string{"a\nb"}}} }, Invalid, 125, `spec: "a\nb": not a host's name or address`},
		} {
			t.Run(test.name, func(t *testing.T) {
				b := w.newBox(t, "echo hello")
				test.set(b)
				out, code := b.start().output()
				says := strings.ReplaceAll(b.stderr.String(), b.base, "BASE")
				if out != "" || code != test.code || says != "locald: container: "+test.says+"\n" {
					t.Errorf("status %d, it prints %q and says %q; want status %d, and %q", code, out, says, test.code, test.says)
				}
				if err := Ready(t.Context(), b.dir); !IsKind(err, test.kind) {
					t.Errorf("Ready: %v", err)
				}
			})
		}
	})
}

func TestAnOrdinaryUserHasOneUser(t *testing.T) {
	t.Parallel()
	w, ok := ordinary(t)
	if !ok {
		t.Skip()
	}
	b := w.newBox(t, "id -u; id -g; touch /srv/a; stat -c %u:%g /srv/a; exec cat /proc/self/uid_map")
	b.spec.MapUID, b.spec.MapGID, b.spec.User = 999, 998, User{UID: 999, GID: 998}
	b.want(fmt.Sprintf("999\n998\n999:998\n%10d %10d %10d\n", 999, w.user, 1), 0)
	var st syscall.Stat_t
	if err := syscall.Stat(filepath.Join(b.dir, "upper/srv/a"), &st); err != nil || int(st.Uid) != w.user {
		t.Errorf("outside it belongs to %d: %v", st.Uid, err)
	}
	b = w.newBox(t, "")
	b.spec.MapUID, b.spec.User = 999, User{UID: 0}
	if _, code := b.start().output(); code != 125 || !strings.Contains(b.stderr.String(), "user 0:0: the container of an ordinary user has one user only, here 999:0") {
		t.Errorf("status %d; it says %s", code, b.stderr.String())
	}
}

// What the users of a range have made is theirs outside too, and only they, or
// root among them, can delete it.
func TestARangeOfUsers(t *testing.T) {
	t.Parallel()
	w, ok := ranged(t)
	if !ok {
		t.Skip()
	}
	b := w.newBox(t, "id -u; id -G; mkdir -m 700 d; touch d/f; stat -c %u:%g d; chown 5 d 2>/dev/null || echo no; stat -c %u:%g /etc")
	b.spec.User, b.spec.Workdir = User{UID: 999, GID: 998, Groups: []uint32{7, 8}}, "/tmp"
	b.want("999\n998 7 8\n999:998\nno\n0:0\n", 0)
	var st syscall.Stat_t
	if err := syscall.Stat(filepath.Join(b.dir, "upper/tmp/d"), &st); err != nil || st.Uid != w.users.UIDs[1].Host+998 {
		t.Errorf("outside it belongs to %d: %v", st.Uid, err)
	}
	w.runs(t, "remove", b.dir)
	if _, err := os.Lstat(b.dir); err == nil {
		t.Error("it is there after it was removed")
	}

	b = w.newBox(t, "")
	b.spec.User = User{UID: 1 << 20}
	if _, code := b.start().output(); code != 125 || !strings.Contains(b.stderr.String(), "user 1048576:0: the range of users that the container has is too small") {
		t.Errorf("status %d; it says %s", code, b.stderr.String())
	}
}

func TestOwnersFromARange(t *testing.T) {
	t.Parallel()
	w, ok := ranged(t)
	if !ok {
		t.Skip()
	}
	base := w.place(t)
	b := &box{t: t, base: base}
	for _, name := range []string{"open", "closed/f"} {
		b.write(filepath.Join(base, "it", name), name)
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(base, "it/link")); err != nil {
		t.Fatal(err)
	}
	w.own(t, base)
	w.runs(t, "own", filepath.Join(base, "it"))
	first := w.users.UIDs[1].Host - 1
	for name, want := range map[string][3]uint32{
		"open": {first + 7, first + 8, 0o104711}, "closed": {first + 9, first + 9, 0o40700}, "closed/f": {first + 9, uint32(w.user), 0o100600}, "link": {first + 7, uint32(w.user), 0o120777},
	} {
		var st syscall.Stat_t
		if err := syscall.Lstat(filepath.Join(base, "it", name), &st); err != nil || [3]uint32{st.Uid, st.Gid, st.Mode} != want {
			t.Errorf("%s is %d:%d %o, want %d; %v", name, st.Uid, st.Gid, st.Mode, want, err)
		}
	}
}

// runs has them run a command of the test binary.
func (w who) runs(t *testing.T, arguments ...string) {
	t.Helper()
	command := slices.Concat(w.command, []string{copyOfTest}, arguments)
	if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", arguments, err, out)
	}
}

func TestRootHasUsersAndGroups(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("not root")
	}
	b := who{rootful: true}.newBox(t, "id -u; id -G; grep CapEff /proc/self/status; echo again >/dev/stdout; echo $HOME; touch /srv/a 2>&1")
	b.spec.User = User{UID: 999, GID: 998, Groups: []uint32{7, 8}, Home: "/home/x"}
	b.want("999\n998 7 8\nCapEff:\t0000000000000000\nagain\n/home/x\ntouch: cannot touch '/srv/a': Permission denied\n", 1)
}

func TestWhatIsMounted(t *testing.T) {
	everybody(t, func(t *testing.T, w who) {
		b := w.newBox(t, `
			cat /a/f /dir/b/f /config; echo new >/a/new; echo no 2>&1 >/ro/f; echo no 2>&1 >/ro/sub/f
			echo link; cat /link/f /up/f; ls -A /t; stat -c %a /t /u /srv; echo "echo ran" >/t/x; chmod +x /t/x; /t/x 2>&1; cp /t/x /u; /u/x; test -e /u/hidden; echo $?; exec cat /etc/hosts | wc -l`)
		host := filepath.Join(b.base, "host")
		for _, name := range []string{"a/f", "b/f", "config", "ro/f", "ro/sub/f", "linked/f", "up/f", "out/f"} {
			b.write(filepath.Join(host, name), name+"\n")
		}
		layer := filepath.Join(b.base, "layer")
		b.write(filepath.Join(layer, "u/hidden"), "")
		for name, to := range map[string]string{"link": "/deep/down", "up": "../../../../../../../../../" + host + "/out"} {
			if err := os.Symlink(to, filepath.Join(layer, name)); err != nil {
				t.Fatal(err)
			}
		}
		w.own(t, b.base)
		at := func(source, target string, readOnly bool) {
			b.spec.Mounts = append(b.spec.Mounts, Mount{Source: filepath.Join(host, source), Target: target, ReadOnly: readOnly})
		}
		at("b", "/dir/b", false) // is below the next one
		at("a", "/dir", false)
		at("a", "/a", false)
		at("config", "/config", true)
		at("ro", "/ro", true)
		at("linked", "/link", false)
		at("up", "/up", false)
		b.spec.Tmpfs = []string{"/t", "/u:exec,mode=750,size=1m", "/srv"}
		b.want(lines(
			"a/f", "b/f", "config", "sh: 2: cannot create /ro/f: Read-only file system", "sh: 2: cannot create /ro/sub/f: Read-only file system",
			"link", "linked/f", "up/f", "1777", "750", "755", "sh: 3: /t/x: Permission denied", "ran", "1", "3"), 0)
		if text, err := os.ReadFile(filepath.Join(host, "a/new")); err != nil || string(text) != "new\n" {
			t.Errorf("%q, %v", text, err)
		}
	})
}

func TestVolumesAreFilled(t *testing.T) {
	everybody(t, func(t *testing.T, w who) {
		// What the image has, in a directory that leads there by a link.
		image := func(b *box) {
			data := filepath.Join(b.base, "layer/srv/data")
			b.write(filepath.Join(data, "a"), "a of the image\n")
			b.write(filepath.Join(data, "sub/run"), "echo ran\n")
			for _, err := range []error{
				os.Link(filepath.Join(data, "a"), filepath.Join(data, "sub/again")),
				os.Symlink("/etc/hosts", filepath.Join(data, "out")), os.Symlink("srv/data", filepath.Join(b.base, "layer/link")),
				unix.Chmod(filepath.Join(data, "sub/run"), 0o751), unix.Chmod(filepath.Join(data, "sub"), 0o500), unix.Chmod(data, 0o1730),
			} {
				if err != nil {
					t.Fatal(err)
				}
			}
		}
		const look = "cd /link; cat a sub/run; stat -c %a . sub sub/run; stat -c %h a; readlink out; ls -A"
		const filled = "a of the image\necho ran\n1730\n500\n751\n2\n/etc/hosts\na\nout\nsub\n"
		for name, test := range map[string]struct {
			before func(*testing.T, *box, string)
			want   string
		}{
			"new": {func(*testing.T, *box, string) {}, filled},
			"empty": {func(t *testing.T, _ *box, volume string) {
				if err := os.Mkdir(volume, 0o700); err != nil {
					t.Fatal(err)
				}
			}, filled},
			"killed while it was copied": {func(_ *testing.T, b *box, volume string) {
				b.write(volume+".part/a", "half of it")
				b.write(volume+".part/old", "")
			}, filled},
			"killed while it moved in": {func(_ *testing.T, b *box, volume string) {
				b.write(volume+".copied/sub/run", "of the copy\n")
				b.write(volume+"/a", "that has moved\n")
			}, "that has moved\nof the copy\n755\n755\n644\n1\na\nsub\n"},
			"in use": {func(_ *testing.T, b *box, volume string) {
				b.write(volume+"/a", "mine\n")
			}, "mine\n755\n1\na\n"},
		} {
			t.Run(name, func(t *testing.T) {
				b := w.newBox(t, look+" 2>/dev/null; echo 2>/dev/null >new; exit 0")
				image(b)
				volume := filepath.Join(b.base, "c/volumes/0")
				if err := os.Mkdir(filepath.Dir(volume), 0o755); err != nil {
					t.Fatal(err)
				}
				test.before(t, b, volume)
				w.own(t, b.base)
				b.spec.Mounts = append(b.spec.Mounts, Mount{Source: volume, Target: "/link", Fill: true})
				out, _ := b.start().output()
				if out != test.want {
					t.Errorf("it sees\n%s, want\n%s; it says %s", out, test.want, b.stderr.String())
				}
				if left, _ := filepath.Glob(volume + ".*"); len(left) > 0 {
					t.Errorf("beside it are %v", left)
				}
				if _, err := os.Lstat(filepath.Join(volume, "new")); err != nil {
					t.Error(err)
				}
			})
		}
	})
}

func TestAVolumeBelongsToWhomTheImageSays(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("not root")
	}
	b := who{rootful: true}.newBox(t, "stat -c %u:%g . f; echo >mine && cat mine")
	data := filepath.Join(b.base, "layer/data")
	b.write(filepath.Join(data, "f"), "")
	for name, owner := range map[string]int{data: 999, data + "/f": 7} {
		if err := os.Chown(name, owner, owner); err != nil {
			t.Fatal(err)
		}
	}
	b.spec.User, b.spec.Workdir = User{UID: 999, GID: 999}, "/data"
	b.spec.Mounts = append(b.spec.Mounts, Mount{Source: filepath.Join(b.dir, "volumes/0"), Target: "/data", Fill: true})
	b.want("999:999\n7:7\n\n", 0)
}

func TestReadOnlyRoot(t *testing.T) {
	everybody(t, func(t *testing.T, w who) {
		b := w.newBox(t, "touch /srv/a 2>/dev/null || echo no; touch /t/a /dev/shm/a /v/a && echo yes; pwd")
		b.spec.ReadOnly, b.spec.Tmpfs, b.spec.Workdir = true, []string{"/t"}, "/made"
		b.spec.Mounts = append(b.spec.Mounts, Mount{Source: filepath.Join(b.base, "layer"), Target: "/v"})
		b.want("no\nyes\n/made\n", 0)
	})
}

func TestWhatIsKeptFromIt(t *testing.T) {
	everybody(t, func(t *testing.T, w who) {
		b := w.newBox(t, `grep -E "^(Cap(Inh|Bnd|Amb)|NoNewPrivs|Seccomp):" /proc/self/status; cat /proc/kcore /proc/timer_list /proc/keys 2>/dev/null | wc -c
			ls /sys/firmware | wc -l; echo 1 2>/dev/null >/proc/sys/vm/swappiness || echo no sysctl; touch /sys/x 2>/dev/null || echo no sysfs; test $(ls /proc | grep -c "^[0-9]") -lt 6 && echo few processes
			ls -l /proc/self/fd | grep -c -- "->"; cat /proc/1/environ 2>/dev/null || readlink /proc/1/exe || readlink /proc/1/fd/3 || ls /proc/1/root/ 2>/dev/null || echo nothing of pid 1; cat /proc/net/dev | wc -l; /self calls`)
		b.want(lines(
			"CapInh:\t0000000000000000", "CapBnd:\t00000000a80425fb", "CapAmb:\t0000000000000000", "NoNewPrivs:\t0", "Seccomp:\t2", "0",
			"0", "no sysctl", "no sysfs", "few processes",
			"4", "nothing of pid 1", "3",
			"unshare user: EPERM", "unshare mount: EPERM", "clone with a namespace: EPERM", "clone3: ENOSYS",
			"socket unix: done", "socket vsock: EPERM", "socket alg: EPERM", "personality read: done", "personality odd: EPERM",
			"keyctl: EPERM", "bpf: EPERM", "unheard of: ENOSYS", "mount: EPERM"), 0)
	})
}
