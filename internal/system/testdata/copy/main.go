// Command copy is what the nemesis test has locald run. What it does is its
// first argument:
//
//	hold FILE     holds FILE alone, with all of its children, notes its run
//	              there, listens on PORT, counts aloud, and stays; at SIGUSR1 it
//	              forks a storm of children, each in a session of its own
//	canary FILE   notes every signal that it gets there, and stays
package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	run := hold
	if os.Args[1] == "canary" {
		run = canary
	}
	if err := run(os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// counting is how often a line is printed, and storm how many children come of
// one signal, each after a pause.
const (
	counting = 20 * time.Millisecond
	storm    = 60
	pause    = 5 * time.Millisecond
)

// hold fails when anything of another copy has the file, and notes that too: an
// overlap of an instant is seen afterwards. The lock is the open file's, so
// children that live on keep it.
func hold(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o666)
	if err != nil {
		return err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		fmt.Fprintf(f, "overlap %s %d\n", os.Getenv("LOCALD_RUN"), os.Getpid())
		return fmt.Errorf("another copy has %s: %w", path, err)
	}
	fmt.Fprintf(f, "run %s %d\n", os.Getenv("LOCALD_RUN"), os.Getpid())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGUSR1)
	if port := os.Getenv("PORT"); port != "" {
		l, err := net.Listen("tcp", "127.0.0.1:"+port)
		if err != nil {
			return err
		}
		defer l.Close()
	}
	copied := time.Now().UnixNano()
	tick := time.NewTicker(counting)
	for n := 1; ; {
		select {
		case <-tick.C:
			if _, err := fmt.Printf("count %d %d\n", copied, n); err != nil {
				return err
			}
			n++
		case s := <-signals:
			if s == syscall.SIGTERM {
				return nil
			}
			go rage(f)
		}
	}
}

func rage(f *os.File) {
	for range storm {
		child := exec.Command("sleep", "3")
		child.ExtraFiles = []*os.File{f}
		child.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if child.Start() == nil {
			go child.Wait()
		}
		time.Sleep(pause)
	}
}

func canary(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o666)
	if err != nil {
		return err
	}
	signals := make(chan os.Signal, 64)
	signal.Notify(signals)
	fmt.Fprintln(f, "sings")
	for s := range signals {
		if s != syscall.SIGURG { // the Go runtime's own
			fmt.Fprintln(f, "signal", s)
		}
	}
	return nil
}
