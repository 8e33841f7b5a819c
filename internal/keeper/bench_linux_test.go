package keeper

import (
	"fmt"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"
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
