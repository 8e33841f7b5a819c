package keeper

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/locald/locald/internal/wire"
)

const many = 200

// benchEnv is about the size of a developer's environment.
func benchEnv() (e []string) {
	e = append(e, env...)
	for i := range 60 {
		e = append(e, fmt.Sprintf("VARIABLE_%02d=/some/directory/of/a/toolchain/bin:%d", i, i))
	}
	return e
}

// BenchmarkFrame is a request for a run with a developer's environment, and its
// answer, over the socket pair of daemon and keeper.
func BenchmarkFrame(b *testing.B) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		b.Fatal(err)
	}
	var ends [2]*wire.Conn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "pair")
		conn, err := net.FileConn(f)
		if err != nil {
			b.Fatal(err)
		}
		f.Close()
		defer conn.Close()
		ends[i] = wire.New(conn.(*net.UnixConn))
	}
	run := &runRequest{Run: "p/web#1", Number: 1, Argv: []byte("sleep\x0060"), Dir: []byte("/"), Env: []byte(strings.Join(benchEnv(), "\x00")), Log: []byte("/log")}
	b.ReportAllocs()
	for b.Loop() {
		if err := sendRequest(ends[0], request{ID: 1, Run: run}); err != nil {
			b.Fatal(err)
		}
		var asked request
		if err := receiveRequest(ends[1], &asked); err != nil {
			b.Fatal(err)
		}
		if err := ends[1].Send(answer{ID: asked.ID, PID: 42}); err != nil {
			b.Fatal(err)
		}
		var answered answer
		if err := ends[0].Receive(&answered); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkBareStart200 is what nothing can beat: fork and exec, one after
// another, with the pipes.
func BenchmarkBareStart200(b *testing.B) {
	e := benchEnv()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer null.Close()
	for b.Loop() {
		var pids [many]int
		for i := range pids {
			var out, err [2]int
			if e := syscall.Pipe2(out[:], syscall.O_CLOEXEC); e != nil {
				b.Fatal(e)
			}
			if e := syscall.Pipe2(err[:], syscall.O_CLOEXEC); e != nil {
				b.Fatal(e)
			}
			pid, e := syscall.ForkExec("/bin/sleep", []string{"sleep", "60"}, &syscall.ProcAttr{
				Dir: "/", Env: e, Files: []uintptr{null.Fd(), uintptr(out[1]), uintptr(err[1])}, Sys: &syscall.SysProcAttr{Setpgid: true},
			})
			if e != nil {
				b.Fatal(e)
			}
			pids[i] = pid
			for _, fd := range []int{out[0], out[1], err[0], err[1]} {
				syscall.Close(fd)
			}
		}
		b.StopTimer()
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGKILL)
			_, _ = syscall.Wait4(pid, nil, 0, nil)
		}
		b.StartTimer()
	}
}

func BenchmarkStart200(b *testing.B) {
	b.Run("groups", func(b *testing.B) { benchmarkStart(b, false) })
	b.Run("no-groups", func(b *testing.B) { benchmarkStart(b, true) })
}

func benchmarkStart(b *testing.B, noGroups bool) {
	k, err := Start(b.Context(), Options{Dir: b.TempDir(), Owner: "bench", Log: os.Stderr, NoGroups: noGroups})
	if err != nil {
		b.Fatal(err)
	}
	defer k.Close()
	e, log := benchEnv(), b.TempDir()
	n := 0
	idle := memory(b, k.PID(), "RssAnon")
	for b.Loop() {
		var all [many]*Child
		var starts sync.WaitGroup
		for i := range all {
			n++
			r := Run{ID: fmt.Sprintf("p/web#%d", n), Number: n, Argv: []string{"sleep", "60"}, Dir: "/", Env: e, Log: log}
			starts.Go(func() {
				c, err := k.Run(b.Context(), r)
				if err != nil {
					b.Error(err)
					return
				}
				all[i] = c
			})
		}
		starts.Wait()
		b.StopTimer()
		b.ReportMetric(float64(memory(b, k.PID(), "RssAnon")-idle), "KiB-more")
		stopMany(b, all[:])
		b.StartTimer()
	}
	b.ReportMetric(float64(idle), "KiB-idle")
}

func stopMany(b *testing.B, all []*Child) {
	var stops sync.WaitGroup
	for _, c := range all {
		stops.Go(func() {
			if err := c.Stop(b.Context(), time.Second); err != nil {
				b.Error(err)
			}
		})
	}
	stops.Wait()
}

// BenchmarkStop200 stops obedient runs together.
func BenchmarkStop200(b *testing.B) {
	k, err := Start(b.Context(), Options{Dir: b.TempDir(), Owner: "bench", Log: os.Stderr})
	if err != nil {
		b.Fatal(err)
	}
	defer k.Close()
	n := 0
	for b.Loop() {
		b.StopTimer()
		var all [many]*Child
		for i := range all {
			n++
			if all[i], err = k.Run(b.Context(), Run{ID: fmt.Sprintf("p/web#%d", n), Argv: []string{"sleep", "60"}, Dir: "/", Env: env}); err != nil {
				b.Fatal(err)
			}
		}
		b.StartTimer()
		stopMany(b, all[:])
	}
}

// BenchmarkEnd is from the kill of a main process to the report, with others
// running: the keeper's part of a restart.
func BenchmarkEnd(b *testing.B) {
	k, err := Start(b.Context(), Options{Dir: b.TempDir(), Owner: "bench", Log: os.Stderr})
	if err != nil {
		b.Fatal(err)
	}
	defer k.Close()
	log := b.TempDir()
	for i := range many {
		if _, err := k.Run(b.Context(), Run{ID: fmt.Sprintf("p/other%d#1", i), Argv: []string{"sleep", "600"}, Dir: "/", Env: env, Log: log}); err != nil {
			b.Fatal(err)
		}
	}
	n := 0
	for b.Loop() {
		b.StopTimer()
		n++
		c, err := k.Run(b.Context(), Run{ID: fmt.Sprintf("p/web#%d", n), Argv: []string{"sleep", "60"}, Dir: "/", Env: env, Log: log})
		if err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		_ = syscall.Kill(c.PID(), syscall.SIGKILL)
		<-c.Done()
	}
}

// BenchmarkKeepers starts runs below one keeper for all, and below one keeper
// each, with the keepers. KiB is the proportional share of the keepers' memory.
func BenchmarkKeepers(b *testing.B) {
	for _, n := range []int{1, many} {
		b.Run(fmt.Sprintf("one-for-all/%d", n), func(b *testing.B) { benchmarkKeepers(b, 1, n) })
		b.Run(fmt.Sprintf("one-each/%d", n), func(b *testing.B) { benchmarkKeepers(b, n, 1) })
	}
}

func benchmarkKeepers(b *testing.B, keepers, runs int) {
	e, log := benchEnv(), b.TempDir()
	total := 0
	for b.Loop() {
		all := make([]*Keeper, keepers)
		var starts sync.WaitGroup
		for i := range all {
			starts.Go(func() {
				k, err := Start(b.Context(), Options{Dir: b.TempDir(), Owner: fmt.Sprintf("bench%d", i), Log: os.Stderr})
				if err != nil {
					b.Error(err)
					return
				}
				all[i] = k
				var below sync.WaitGroup
				for n := range runs {
					below.Go(func() {
						r := Run{ID: fmt.Sprintf("p/web%d#1", n), Number: 1, Argv: []string{"sleep", "60"}, Dir: "/", Env: e, Log: filepath.Join(log, fmt.Sprintf("%d-%d", i, n))}
						if _, err := k.Run(b.Context(), r); err != nil {
							b.Error(err)
						}
					})
				}
				below.Wait()
			})
		}
		starts.Wait()
		b.StopTimer()
		total = 0
		for _, k := range all {
			total += portionOf(b, k.PID())
		}
		var ends sync.WaitGroup
		for _, k := range all {
			ends.Go(func() { _ = k.Close() })
		}
		ends.Wait()
		b.StartTimer()
	}
	b.ReportMetric(float64(total), "KiB")
}

// portionOf is the proportional share of a process's memory in KiB.
func portionOf(b *testing.B, pid int) (kib int) {
	b.Helper()
	rollup, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(rollup)) {
		if rest, ok := strings.CutPrefix(line, "Pss:"); ok {
			_, _ = fmt.Sscan(rest, &kib)
		}
	}
	return kib
}
