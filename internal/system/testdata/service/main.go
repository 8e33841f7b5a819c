// Command service is what the tests of the whole product have locald run. What
// it does is its first argument:
//
//	once FILE     holds FILE alone, notes its run there, listens on PORT, stays
//	ready DELAY   listens on PORT after DELAY, and stays
//	clock N EVERY prints the time N times, by turns on both streams, and ends with 1
//	write SHAPE FILE holds FILE as once does, and writes numbered lines
//	tries         does what standard input says, and prints what came of it
//	crowd SOCKET N connects, at least N times
//	squat SOCKET… listens there, and counts what it is sent
//	spew BYTES FIFO prints so much at each SIGUSR1, and tells FIFO how long it took
//	tick EVERY    prints "tick N" for ever; a connection to PORT that sends a
//	              number is closed after so many more
package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"
)

func main() {
	if err := run(os.Args[1], os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(mode string, args []string) error {
	switch mode {
	case "once":
		return once(args[0])
	case "tries":
		return tries()
	case "crowd":
		often, err := strconv.Atoi(args[1])
		if err != nil {
			return err
		}
		return crowd(args[0], often)
	case "squat":
		return squat(args)
	case "write":
		return write(args[0], args[1])
	case "ready":
		delay, err := time.ParseDuration(args[0])
		if err != nil {
			return err
		}
		time.Sleep(delay)
		return stay()
	case "clock":
		count, err := strconv.Atoi(args[0])
		if err != nil {
			return err
		}
		every, err := time.ParseDuration(args[1])
		if err != nil {
			return err
		}
		return clock(count, every)
	case "tick":
		every, err := time.ParseDuration(args[0])
		if err != nil {
			return err
		}
		return tick(every)
	case "spew":
		size, err := strconv.Atoi(args[0])
		if err != nil {
			return err
		}
		return spew(size, args[1])
	}
	return fmt.Errorf("%s: no such mode", mode)
}

// once fails when another copy has the file.
func once(path string) error {
	f, err := hold(path)
	if err != nil {
		return err
	}
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGTERM)
	if err := listen(); err != nil {
		return err
	}
	<-ended
	fmt.Fprintf(f, "stopped %s %d\n", os.Getenv("LOCALD_RUN"), time.Now().UnixNano())
	return nil // the lock is held until the process is gone
}

// hold takes a file for this process alone, and notes the run there. When another
// copy has it that is noted too: an overlap of an instant is seen afterwards.
func hold(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o666)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		fmt.Fprintf(f, "overlap %s %d\n", os.Getenv("LOCALD_RUN"), os.Getpid())
		return nil, fmt.Errorf("another copy has %s: %w", path, err)
	}
	fmt.Fprintf(f, "run %s %d\n", os.Getenv("LOCALD_RUN"), os.Getpid())
	return f, nil
}

func stay() error {
	if err := listen(); err != nil {
		return err
	}
	select {}
}

func listen() error {
	port := os.Getenv("PORT")
	if port == "" {
		return nil
	}
	l, err := net.Listen("tcp", "127.0.0.1:"+port)
	if err != nil {
		return err
	}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conn.Close()
		}
	}()
	return nil
}

func clock(count int, every time.Duration) error {
	tick := time.NewTicker(every)
	for n := range count {
		<-tick.C
		out, name := os.Stdout, "out"
		if n%2 == 1 {
			out, name = os.Stderr, "err"
		}
		fmt.Fprintf(out, "%s %s %d %d\n", name, os.Getenv("LOCALD_RUN"), n, time.Now().UnixNano())
	}
	os.Exit(1)
	return nil
}

// tick answers a connection once it has printed as often again as is in it.
func tick(every time.Duration) error {
	l, err := net.Listen("tcp", "127.0.0.1:"+os.Getenv("PORT"))
	if err != nil {
		return err
	}
	waiting := make(chan net.Conn)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			waiting <- conn
		}
	}()
	tick := time.NewTicker(every)
	due := map[int][]net.Conn{}
	for n := 1; ; {
		select {
		case <-tick.C:
			if _, err := fmt.Printf("tick %d\n", n); err != nil {
				return err
			}
			for _, conn := range due[n] {
				conn.Close()
			}
			delete(due, n)
			n++
		case conn := <-waiting:
			var more int
			if _, err := fmt.Fscan(conn, &more); err != nil {
				return err
			}
			due[n+more] = append(due[n+more], conn)
		}
	}
}

func spew(size int, fifo string) error {
	line := append(bytes.Repeat([]byte("x"), 99), '\n')
	block := bytes.Repeat(line, 640)
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGUSR1)
	if err := listen(); err != nil {
		return err
	}
	for n := 1; ; n++ {
		<-asked
		began := time.Now()
		for left := size; left > 0; left -= len(block) {
			if _, err := os.Stdout.Write(block[:min(left, len(block))]); err != nil {
				return err
			}
		}
		took := time.Since(began)
		fmt.Printf("end %d\n", n)
		if err := os.WriteFile(fifo, []byte(took.String()), 0o600); err != nil {
			return err
		}
	}
}
