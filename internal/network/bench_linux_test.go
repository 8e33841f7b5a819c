package network

import (
	"io"
	"net"
	"testing"
)

// BenchmarkPublishedPort sends to a container and reads from it.
func BenchmarkPublishedPort(b *testing.B) {
	port := freePort(b)
	web := start(b, Config{Name: "web", Dir: project(b), Ports: []Port{{port, 80}, {freePort(b), 81}, {freePort(b), 82}}})
	web.must(b, "sink", ":80")
	web.must(b, "source", ":81")
	web.must(b, "echo", ":82")
	b.Run("in", func(b *testing.B) { send(b, dialPort(b, web, 0)) })
	// What this machine does without a container in between.
	b.Run("loopback", func(b *testing.B) {
		port := freePort(b)
		if err := serveSink(at("127.0.0.1", port)); err != nil {
			b.Fatal(err)
		}
		c, err := net.Dial("tcp", at("127.0.0.1", port))
		if err != nil {
			b.Fatal(err)
		}
		defer c.Close()
		send(b, c.(*net.TCPConn))
	})
	b.Run("out", func(b *testing.B) {
		c := dialPort(b, web, 1)
		buf := make([]byte, chunk)
		b.SetBytes(chunk)
		for b.Loop() {
			if err := readFull(c, buf); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("connect", func(b *testing.B) {
		for b.Loop() {
			c := dialPort(b, web, 2)
			if _, err := c.Write([]byte("x")); err != nil {
				b.Fatal(err)
			}
			if err := readFull(c, make([]byte, 1)); err != nil {
				b.Fatal(err)
			}
			c.Close()
		}
	})
	b.Run("question", func(b *testing.B) {
		c := dialPort(b, web, 2)
		for b.Loop() {
			if _, err := c.Write([]byte("x")); err != nil {
				b.Fatal(err)
			}
			if err := readFull(c, make([]byte, 1)); err != nil {
				b.Fatal(err)
			}
		}
	})
}

const chunk = 1 << 20

// send writes until everything has arrived.
func send(b *testing.B, c *net.TCPConn) {
	b.Helper()
	buf := make([]byte, chunk)
	b.SetBytes(chunk)
	for b.Loop() {
		if _, err := c.Write(buf); err != nil {
			b.Fatal(err)
		}
	}
	if err := c.CloseWrite(); err != nil {
		b.Fatal(err)
	}
	if _, err := io.ReadAll(c); err != nil {
		b.Fatal(err)
	}
}

func dialPort(b *testing.B, c *container, i int) *net.TCPConn {
	b.Helper()
	conn, err := net.Dial("tcp", at("127.0.0.1", c.network.config.Ports[i].Host))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { conn.Close() })
	return conn.(*net.TCPConn)
}
