package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strconv"
	"syscall"
	"time"
)

// stub is the program that services of the scripts run.
//
//	stub http           serves on PORT until SIGTERM
//	stub http STATUS    the same, answering with that status
//	stub listen PORT    accepts connections on PORT and says nothing
//	stub notify TEXT    tells NOTIFY_SOCKET, and stays
//	stub line BYTES     writes one line of that length
//	stub get URL        prints what is there
//	stub stay           stays until SIGTERM
//	stub as CMD...      becomes CMD, run by nobody
func stub() {
	if err := stubMain(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "stub:", err)
		os.Exit(1)
	}
}

func stubMain(args []string) error {
	if slices.Contains([]string{"http", "listen", "notify", "stay"}, args[0]) {
		signal.Notify(told, syscall.SIGTERM)
	}
	if len(args) == 0 {
		return fmt.Errorf("usage: stub http|listen|notify|line|get|stay|as [ARG]")
	}
	arg := ""
	if len(args) > 1 {
		arg = args[1]
	}
	switch args[0] {
	case "http":
		return stubHTTP(arg)
	case "listen":
		return stubListen("127.0.0.1:" + arg)
	case "notify":
		return stubNotify(arg)
	case "line":
		return stubLine(arg)
	case "get":
		return stubGet(arg)
	case "as":
		return stubAs(args[1:])
	case "stay":
		stay()
		return nil
	}
	return fmt.Errorf("stub %s: unknown", args[0])
}

// told to end: from before it says or does anything that somebody waits for.
var told = make(chan os.Signal, 1)

func stay() { <-told }

func stubHTTP(status string) error {
	code := http.StatusOK
	if status != "" {
		var err error
		if code, err = strconv.Atoi(status); err != nil {
			return err
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:"+os.Getenv("PORT"))
	if err != nil {
		return err
	}
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(code)
		_, _ = fmt.Fprintf(w, "%s run %s\n", os.Getenv("LOCALD_SERVICE"), os.Getenv("LOCALD_RUN"))
	})}
	go func() { _ = server.Serve(l) }()
	fmt.Println("serving on", os.Getenv("PORT"))
	stay()
	fmt.Println("leaving")
	return nil
}

func stubListen(address string) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	defer func() { _ = l.Close() }()
	stay()
	return nil
}

func stubNotify(text string) error {
	conn, err := net.Dial("unixgram", os.Getenv("NOTIFY_SOCKET"))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	if _, err := conn.Write([]byte(text)); err != nil {
		return err
	}
	stay()
	return nil
}

func stubLine(length string) error {
	n, err := strconv.Atoi(length)
	if err != nil {
		return err
	}
	chunk := bytes.Repeat([]byte("x"), 64<<10)
	for n > 0 {
		m := min(n, len(chunk))
		if _, err := os.Stdout.Write(chunk[:m]); err != nil {
			return err
		}
		n -= m
	}
	_, err = os.Stdout.WriteString("\n")
	return err
}

func stubGet(url string) error {
	response, err := http.Get(url) //nolint:noctx // the script waits for it
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	_, err = io.Copy(os.Stdout, response.Body)
	return err
}

func stubAs(command []string) error {
	if len(command) == 0 {
		return errors.New("as: the command is missing")
	}
	path, err := exec.LookPath(command[0])
	if err != nil {
		return err
	}
	if err := syscall.Setgroups(nil); err != nil {
		return err
	}
	if err := syscall.Setgid(nobodyID); err != nil {
		return err
	}
	if err := syscall.Setuid(nobodyID); err != nil {
		return err
	}
	return syscall.Exec(path, command, os.Environ())
}
