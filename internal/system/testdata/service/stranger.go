package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
)

// tries does what each line of standard input says, "read PATH" for example, and
// prints "done" or what keeps it from that.
func tries() error {
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		verb, what, _ := strings.Cut(lines.Text(), " ")
		if err := attempt(verb, what); err != nil {
			fmt.Println(err)
		} else {
			fmt.Println("done")
		}
	}
	return nil
}

func attempt(verb, what string) error {
	switch verb {
	case "read":
		f, err := os.OpenFile(what, os.O_RDONLY|syscall.O_NONBLOCK, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = f.Read(make([]byte, 1)) // of what is of processes, this is what is refused
		if errors.Is(err, io.EOF) {
			return nil
		}
		return err
	case "write":
		f, err := os.OpenFile(what, os.O_WRONLY|syscall.O_NONBLOCK, 0)
		if err != nil {
			return err
		}
		return f.Close()
	case "list":
		_, err := os.ReadDir(what)
		return err
	case "remove":
		return os.Remove(what)
	case "connect":
		conn, err := net.Dial("unix", what)
		if err != nil {
			return err
		}
		return conn.Close()
	case "signal":
		pid, err := strconv.Atoi(what)
		if err != nil {
			return err
		}
		return syscall.Kill(pid, syscall.SIGKILL)
	}
	return fmt.Errorf("%s: no such attempt", verb)
}

// crowd connects over and over, and keeps what it gets, until standard input
// ends. It prints a line once it has tried so often, and the sums at the end.
func crowd(socket string, often int) error {
	over := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(over)
	}()
	var held []net.Conn
	for tried := 1; ; tried++ {
		if conn, err := net.Dial("unix", socket); err == nil {
			held = append(held, conn)
		}
		if tried == often {
			fmt.Println("crowded")
		}
		if tried < often {
			continue
		}
		select {
		case <-over:
			fmt.Println(tried, len(held))
			return nil
		default:
		}
	}
}

// squat listens where somebody else might want to, answers like a daemon, and
// prints at the end of standard input how many bytes it was sent.
func squat(sockets []string) error {
	var calls, sent atomic.Int64
	for _, path := range sockets {
		l, err := net.Listen("unix", path)
		if err != nil {
			return err
		}
		if err := os.Chmod(path, 0o777); err != nil {
			return err
		}
		go func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				calls.Add(1)
				go func() {
					fmt.Fprintln(conn, `{"pid":1,"version":"devel","protocol":1,"wanted":1,"restored":true}`)
					n, _ := io.Copy(io.Discard, conn)
					sent.Add(n)
				}()
			}
		}()
	}
	fmt.Println("listening")
	_, _ = io.Copy(io.Discard, os.Stdin)
	fmt.Println(calls.Load(), sent.Load())
	return nil
}
