package probe

import (
	"bufio"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/locald/locald/runtime"
)

// HTTP is ready when a GET of URL is answered with a status of 2xx or 3xx;
// redirects are not followed. On this host's own addresses only the process
// instance's own listener counts.
type HTTP struct {
	URL string
	Policy

	// Secure is the status of a GET by https ("200 OK"). What speaks TLS is not in
	// this program.
	Secure func(ctx context.Context, url string) (status string, err error)
}

// Run implements Check. It returns when ctx ends.
func (h HTTP) Run(ctx context.Context, in runtime.Instance, report func(Finding)) {
	target, err := url.Parse(h.URL)
	if err != nil || target.Host == "" {
		report(Finding{Detail: "health: " + strconv.Quote(h.URL) + " is not a URL"})
		return
	}
	h.steadily(ctx, report, func(ctx context.Context) string {
		if port := portOf(target); local(target.Hostname()) {
			if why := foreign(ctx, in, port); why != "" {
				return "GET " + target.RequestURI() + ": " + why
			}
		}
		status, err := h.get(ctx, target)
		switch {
		case err != nil:
			return "GET " + target.RequestURI() + ": " + Plain(err)
		case !strings.HasPrefix(status, "2") && !strings.HasPrefix(status, "3"):
			return "GET " + target.RequestURI() + ": " + status
		}
		return ""
	})
}

func portOf(u *url.URL) int {
	if port, err := strconv.Atoi(u.Port()); err == nil {
		return port
	}
	if u.Scheme == "https" {
		return 443
	}
	return 80
}

// get is the status of an answer: three digits, and mostly words.
func (h HTTP) get(ctx context.Context, target *url.URL) (status string, err error) {
	if target.Scheme == "https" {
		return h.Secure(ctx, target.String())
	}
	return get(ctx, target)
}

// mostHeader is how much of an answer is read. Its body is not.
const mostHeader = 1 << 20

// get asks without package net/http, whose libraries are a third of this program,
// and of the memory and the time to start of each of its processes.
func get(ctx context.Context, target *url.URL) (status string, err error) {
	conn, err := dial(ctx, net.JoinHostPort(target.Hostname(), strconv.Itoa(portOf(target))))
	if err != nil {
		return "", err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	credentials := ""
	if u := target.User; u != nil {
		password, _ := u.Password()
		credentials = "Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(u.Username()+":"+password)) + "\r\n"
	}
	_, err = fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: locald\r\n%sConnection: close\r\n\r\n", target.RequestURI(), target.Host, credentials)
	if err != nil {
		return "", err
	}
	return answered(bufio.NewReader(io.LimitReader(conn, mostHeader)))
}

// answered is the first status that is not of an interim answer, such as 103 Early
// Hints.
func answered(r *bufio.Reader) (status string, err error) {
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return "", err
		}
		line = strings.TrimRight(line, "\r\n")
		version, status, _ := strings.Cut(line, " ")
		if !strings.HasPrefix(version, "HTTP/1.") || !isStatus(status) {
			return "", fmt.Errorf("answered %q, which is not HTTP", line)
		}
		if !strings.HasPrefix(status, "1") || strings.HasPrefix(status, "101") {
			return status, nil
		}
		for line != "" {
			if line, err = r.ReadString('\n'); err != nil {
				return "", err
			}
			line = strings.TrimRight(line, "\r\n")
		}
	}
}

func isStatus(s string) bool {
	code, _, _ := strings.Cut(s, " ")
	n, err := strconv.Atoi(code)
	return err == nil && len(code) == 3 && n >= 100
}
