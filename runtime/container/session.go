package container

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"io"
	"log"
	"net"
	"net/http"

	"github.com/google/go-containerregistry/pkg/name"
	"google.golang.org/protobuf/encoding/protowire"
)

// session is a connection on which BuildKit asks who made it, by gRPC. It is
// asked for credentials only: without anybody to ask, BuildKit takes no image
// from a registry, not even one that is open to all. The files go with the
// request to build.
type session struct {
	id     string
	conn   net.Conn
	server *http.Server
	served chan struct{}
}

// The methods that are answered.
const (
	methodCredentials = "/moby.filesync.v1.Auth/Credentials"
	methodHealth      = "/grpc.health.v1.Health/Check"
)

func (e *engine) openSession(ctx context.Context) (*session, error) {
	id := make([]byte, 16)
	_, _ = rand.Read(id) // never fails
	s := &session{id: hex.EncodeToString(id), served: make(chan struct{})}
	conn, err := e.cli.DialHijack(ctx, "/session", "h2c", map[string][]string{
		"X-Docker-Expose-Session-Uuid":        {s.id},
		"X-Docker-Expose-Session-Name":        {"locald"},
		"X-Docker-Expose-Session-Grpc-Method": {methodCredentials, methodHealth},
	})
	if err != nil {
		return nil, err
	}
	s.conn = conn
	s.server = &http.Server{
		Protocols: new(http.Protocols), ErrorLog: log.New(io.Discard, "", 0), ReadHeaderTimeout: pingTime,
		Handler: http.HandlerFunc(answer),
	}
	s.server.Protocols.SetUnencryptedHTTP2(true)
	only := &lone{conns: make(chan net.Conn, 1), closed: make(chan struct{})}
	only.conns <- conn
	go func() {
		defer close(s.served)
		_ = s.server.Serve(only) // ends with close
	}()
	return s, nil
}

func (s *session) close() {
	_ = s.server.Close()
	_ = s.conn.Close() // it may not have been accepted
	<-s.served
}

// answer is one call.
func answer(w http.ResponseWriter, r *http.Request) {
	const ok, unimplemented = "0", "12"
	status := ok
	var reply []byte
	switch r.URL.Path {
	case methodCredentials:
		reply = credentialsFor(r.Context(), r.Body)
	case methodHealth:
		reply = protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), 1) // serving
	default:
		status = unimplemented
	}
	w.Header().Set("Content-Type", "application/grpc")
	w.Header().Set("Trailer", "Grpc-Status")
	if status == ok {
		frame := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(reply)))
		_, _ = w.Write(append(frame, reply...)) // whoever asked has gone
	}
	w.Header().Set("Grpc-Status", status)
}

// credentialsFor answers a CredentialsRequest with a CredentialsResponse, empty
// where nothing is stored.
func credentialsFor(ctx context.Context, body io.Reader) []byte {
	const header = 5 // one byte of flags, four of length
	asked, err := io.ReadAll(io.LimitReader(body, 4<<10))
	if err != nil || len(asked) < header {
		return nil
	}
	host := ""
	fields(asked[header:], func(field protowire.Number, b []byte, _ uint64) {
		if field == 1 {
			host = string(b)
		}
	})
	if host == "registry-1.docker.io" {
		host = name.DefaultRegistry
	}
	of, err := name.NewRegistry(host)
	if err != nil {
		return nil
	}
	found := login(ctx, of)
	user, secret := found.Username, found.Password
	if found.IdentityToken != "" {
		user, secret = "", found.IdentityToken
	}
	reply := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), user)
	return protowire.AppendString(protowire.AppendTag(reply, 2, protowire.BytesType), secret)
}

// lone is a listener with one connection.
type lone struct {
	conns  chan net.Conn
	closed chan struct{}
}

func (l *lone) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close is called once, by the server.
func (l *lone) Close() error {
	close(l.closed)
	return nil
}

func (l *lone) Addr() net.Addr { return &net.UnixAddr{Net: "unix"} }
