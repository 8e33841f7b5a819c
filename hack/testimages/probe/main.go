// Command probe does what its arguments say, in their order, and is the only
// program of the image locald-test/probe. It is static and needs no shell.
//
//	out=TEXT err=TEXT     a line on stdout, on stderr
//	raw=TEXT              TEXT on stdout without a newline
//	lines=N               N numbered lines on stdout and on stderr each
//	stamps=N,INTERVAL     N lines "stamp UNIXNANO" on stdout
//	sleep=DURATION        wait
//	listen=PORT           serve TCP from now on, answering "hello PORT\n"
//	connect=HOST:PORT     prints "connected HOST:PORT: ANSWER" or "no connection to HOST:PORT: WHY"
//	lookup=NAME           prints "NAME is ADDRESS…" or "NAME is unknown"
//	env=NAME              prints NAME=value, or "NAME is unset"
//	id                    prints uid, gid, pid and working directory
//	write=PATH:TEXT cat=PATH   a file
//	exists=PATH           exits 1 when there is nothing
//	trap=ignore|CODE      from now on SIGTERM is ignored, or says "terminated" and exits with CODE
//	signal=NUMBER:CODE    the same for another signal
//	spawn=INSTRUCTION     runs one instruction in a child that is not waited for
//	orphan=INSTRUCTION    the same in a grandchild whose parent ends at once
//	reap                  counts the zombies that are visible: "zombies N"
//	eat=MIB               takes memory and keeps it
//	copy                  stdin to stdout
//	hold                  waits for ever
//	exit=CODE             ends
package main

import (
	"bufio"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	for _, argument := range os.Args[1:] {
		verb, value, _ := strings.Cut(argument, "=")
		do, ok := instructions()[verb]
		if !ok {
			fail("no instruction %q", verb)
		}
		do(value)
	}
}

func instructions() map[string]func(string) {
	return map[string]func(string){
		"out":     func(v string) { fmt.Println(v) },
		"err":     func(v string) { fmt.Fprintln(os.Stderr, v) },
		"raw":     func(v string) { fmt.Print(v) },
		"lines":   lines,
		"stamps":  stamps,
		"sleep":   func(v string) { time.Sleep(duration(v)) },
		"listen":  listen,
		"connect": connect,
		"lookup":  lookup,
		"env":     env,
		"id": func(string) {
			dir, _ := os.Getwd()
			fmt.Println("uid", os.Getuid(), "gid", os.Getgid(), "pid", os.Getpid(), "dir", dir)
		},
		"write":  write,
		"cat":    cat,
		"exists": exists,
		"trap":   func(v string) { trap(syscall.SIGTERM, v) },
		"signal": func(v string) {
			which, code, _ := strings.Cut(v, ":")
			trap(syscall.Signal(number(which)), code)
		},
		"spawn":  func(v string) { spawn(v) },
		"orphan": func(v string) { spawn("spawn=" + v) },
		"reap":   zombies,
		"eat":    eat,
		"copy":   func(string) { _, _ = io.Copy(os.Stdout, os.Stdin) },
		"hold":   func(string) { time.Sleep(math.MaxInt64) }, // an empty select would be a deadlock

		"exit": func(v string) { os.Exit(number(v)) },
	}
}

func lines(v string) {
	for i := range number(v) {
		fmt.Println("out", i)
		fmt.Fprintln(os.Stderr, "err", i)
	}
}

func stamps(v string) {
	count, interval, _ := strings.Cut(v, ",")
	for range number(count) {
		fmt.Println("stamp", time.Now().UnixNano())
		time.Sleep(duration(interval))
	}
}

func listen(port string) {
	l, err := net.Listen("tcp", ":"+port)
	if err != nil {
		fail("%v", err)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			fmt.Fprintf(c, "hello %s\n", port)
			c.Close()
		}
	}()
}

func connect(address string) {
	c, err := net.DialTimeout("tcp", address, 3*time.Second)
	if err != nil {
		fmt.Printf("no connection to %s: %v\n", address, err)
		return
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(3 * time.Second))
	answer, err := bufio.NewReader(c).ReadString('\n')
	if err != nil && answer == "" {
		fmt.Printf("no connection to %s: %v\n", address, err)
		return
	}
	fmt.Printf("connected %s: %s\n", address, strings.TrimSpace(answer))
}

func lookup(name string) {
	addresses, err := net.LookupHost(name)
	if err != nil {
		fmt.Println(name, "is unknown")
		return
	}
	fmt.Println(name, "is", strings.Join(addresses, " "))
}

func env(name string) {
	if v, ok := os.LookupEnv(name); ok {
		fmt.Printf("%s=%s\n", name, v)
		return
	}
	fmt.Println(name, "is unset")
}

func write(v string) {
	path, text, _ := strings.Cut(v, ":")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		fail("%v", err)
	}
}

func cat(path string) {
	content, err := os.ReadFile(path)
	if err != nil {
		fail("%v", err)
	}
	fmt.Printf("%s\n", content)
}

func exists(path string) {
	if _, err := os.Stat(path); err != nil {
		fail("%v", err)
	}
}

func trap(which syscall.Signal, v string) {
	if v == "ignore" {
		signal.Ignore(which)
		return
	}
	heard := make(chan os.Signal, 1)
	signal.Notify(heard, which)
	go func() {
		<-heard
		fmt.Println("terminated")
		os.Exit(number(v))
	}()
}

func spawn(instruction string) {
	c := exec.Command("/proc/self/exe", instruction)
	c.Stdout, c.Stderr = os.Stdout, os.Stderr
	if err := c.Start(); err != nil {
		fail("%v", err)
	}
}

func zombies(string) {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	count := 0
	for _, path := range stats {
		content, _ := os.ReadFile(path)
		if _, rest, ok := strings.Cut(string(content), ") "); ok && strings.HasPrefix(rest, "Z") {
			count++
		}
	}
	fmt.Println("zombies", count)
}

func eat(v string) {
	var kept [][]byte
	for range number(v) {
		piece := make([]byte, 1<<20)
		for i := 0; i < len(piece); i += 4096 {
			piece[i] = 1
		}
		kept = append(kept, piece)
	}
	fmt.Println("ate", len(kept))
}

func number(v string) int {
	n, err := strconv.Atoi(v)
	if err != nil {
		fail("%v", err)
	}
	return n
}

func duration(v string) time.Duration {
	d, err := time.ParseDuration(v)
	if err != nil {
		fail("%v", err)
	}
	return d
}

func fail(format string, values ...any) {
	fmt.Fprintf(os.Stderr, "probe: "+format+"\n", values...)
	os.Exit(1)
}
