package oci

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"os"
	"time"
)

// download reads a layer's blob: first what a broken download has left in the
// file, then the rest from the registry, which is added to the file. When the
// connection breaks it goes on where it was. After the last byte Read returns
// io.EOF if the digest is right, and otherwise an error.
type download struct {
	ctx     context.Context
	session *session
	layer   layer
	file    *os.File
	tell    func(Progress)

	tries    tries
	gained   int64 // since the last failure
	stored   int64 // bytes of the file that an earlier download left
	offset   int64
	sum      hash.Hash
	body     io.ReadCloser
	watchdog *time.Timer
	cancel   context.CancelFunc
	err      error
}

// gain is how many bytes make up for a failure: a download that goes on, if in
// pieces, is not given up.
const gain = 1 << 20

// errMismatch is wrapped when a whole blob has not the digest that it should.
var errMismatch = errors.New("its bytes are not those of its digest")

func newDownload(ctx context.Context, c *session, s *Store, l layer, file *os.File, tell func(Progress)) (*download, error) {
	info, err := file.Stat()
	if err != nil {
		return nil, stored(err)
	}
	d := &download{ctx: ctx, session: c, layer: l, file: file, tell: tell, tries: tries{store: s}, sum: sha256.New(), stored: info.Size()}
	if d.stored > l.size {
		d.stored = 0
		if err := file.Truncate(0); err != nil {
			return nil, stored(err)
		}
	}
	return d, nil
}

func (d *download) resumed() bool { return d.stored > 0 }

func (d *download) Read(p []byte) (int, error) {
	if d.err != nil {
		return 0, d.err
	}
	n, err := d.read(p)
	d.err = err
	return n, err
}

func (d *download) read(p []byte) (int, error) {
	if err := d.ctx.Err(); err != nil {
		return 0, err
	}
	if d.offset == d.layer.size {
		return 0, d.verify()
	}
	p = p[:min(int64(len(p)), d.layer.size-d.offset)]
	if d.offset < d.stored {
		n, err := d.file.ReadAt(p[:min(int64(len(p)), d.stored-d.offset)], d.offset)
		if err != nil {
			return 0, stored(err)
		}
		d.took(p[:n])
		return n, nil
	}
	n, err := d.receive(p)
	if err != nil {
		return 0, err
	}
	if _, err := d.file.WriteAt(p[:n], d.offset); err != nil {
		return 0, stored(err)
	}
	d.took(p[:n])
	return n, nil
}

func (d *download) took(p []byte) {
	_, _ = d.sum.Write(p)
	d.offset += int64(len(p))
	d.tell(Progress{Phase: Downloading, Current: d.offset})
}

func (d *download) verify() error {
	if got := hex.EncodeToString(d.sum.Sum(nil)); got != d.layer.blob.Hex {
		return &Error{Kind: Corrupt, Err: fmt.Errorf("%w: they make sha256:%s", errMismatch, got)}
	}
	return io.EOF
}

// receive returns at least one byte from the registry, or why there is none to
// be had.
func (d *download) receive(p []byte) (int, error) {
	for {
		n, err := d.attempt(p)
		if n > 0 {
			d.gained += int64(n)
			return n, nil
		}
		d.hangUp()
		var e *Error
		if errors.As(err, &e) {
			return 0, err
		}
		if d.gained >= gain {
			d.tries.failed = 0
		}
		d.gained = 0
		tell := func(reason string) {
			d.tell(Progress{Phase: Retrying, Current: d.offset, Reason: reason})
		}
		if again := d.tries.again(d.ctx, err, true, tell); again != nil {
			if d.ctx.Err() != nil {
				return 0, d.ctx.Err()
			}
			return 0, d.failed(again)
		}
	}
}

// failed says how far it came, unless the registry has refused.
func (d *download) failed(err error) error {
	told := d.session.told(err)
	if !IsKind(told, Network) {
		return told
	}
	return fail(Network, "it broke off after %d of %d bytes: %w", d.offset, d.layer.size, told)
}

func (d *download) attempt(p []byte) (int, error) {
	if d.body == nil {
		if err := d.connect(); err != nil {
			return 0, err
		}
	}
	stall := d.tries.store.options.Stall
	d.watchdog.Reset(stall)
	n, err := d.body.Read(p)
	if !d.watchdog.Stop() && n == 0 && d.ctx.Err() == nil {
		return 0, fmt.Errorf("nothing came for %v", stall)
	}
	if n == 0 && errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// connect asks for the blob from offset on.
func (d *download) connect() error {
	ctx, cancel := context.WithCancel(d.ctx)
	response, err := d.session.get(ctx, "blobs", d.layer.blob.String(), nil, d.offset, d.layer.size)
	if err == nil {
		if err = d.suits(response); err != nil {
			response.Body.Close()
		}
	}
	if err != nil {
		cancel()
		return err
	}
	d.body, d.cancel = response.Body, cancel
	d.watchdog = time.AfterFunc(d.tries.store.options.Stall, cancel)
	return nil
}

// suits sees that the answer begins where it should. A registry that does not
// know ranges sends everything, of which the beginning is read away.
func (d *download) suits(response *http.Response) error {
	left := d.layer.size - d.offset
	if response.StatusCode == http.StatusPartialContent {
		var start int64
		_, err := fmt.Sscanf(response.Header.Get("Content-Range"), "bytes %d-", &start)
		if err != nil || start != d.offset {
			return fmt.Errorf("asked for bytes from %d on, the registry sends %q", d.offset, response.Header.Get("Content-Range"))
		}
	} else if d.offset > 0 {
		left = d.layer.size
	}
	if has := response.ContentLength; has >= 0 && has != left {
		return fail(Corrupt, "the registry has %d bytes of it and the manifest says %d", d.layer.size-left+has, d.layer.size)
	}
	if response.StatusCode == http.StatusPartialContent || d.offset == 0 {
		return nil
	}
	if _, err := io.CopyN(io.Discard, response.Body, d.offset); err != nil {
		return io.ErrUnexpectedEOF
	}
	return nil
}

func (d *download) hangUp() {
	if d.body == nil {
		return
	}
	d.watchdog.Stop()
	d.cancel()
	d.body.Close()
	d.body = nil
}

// ahead reads from another goroutine, a few pieces in advance, so that what
// reads and what is read work at the same time.
type ahead struct {
	full, empty chan []byte
	rest        []byte
	piece       []byte
	err         error // of the reading side, set before full is closed
	stop, done  chan struct{}
}

func readAhead(from io.Reader) *ahead {
	const pieces, size = 4, 256 << 10
	a := &ahead{full: make(chan []byte, pieces), empty: make(chan []byte, pieces), stop: make(chan struct{}), done: make(chan struct{})}
	for range pieces {
		a.empty <- make([]byte, size)
	}
	go a.fill(from)
	return a
}

func (a *ahead) fill(from io.Reader) {
	defer close(a.done)
	defer close(a.full)
	for {
		var piece []byte
		select {
		case piece = <-a.empty:
		case <-a.stop:
			return
		}
		n, err := io.ReadAtLeast(from, piece, 32<<10)
		if errors.Is(err, io.ErrUnexpectedEOF) && n > 0 {
			err = nil // a short piece; how it ends comes with the next read
		}
		if n > 0 {
			a.full <- piece[:n] // has room for all pieces
		}
		if err != nil {
			a.err = err
			return
		}
	}
}

func (a *ahead) Read(p []byte) (int, error) {
	for len(a.rest) == 0 {
		if a.piece != nil {
			a.empty <- a.piece[:cap(a.piece)]
			a.piece = nil
		}
		piece, more := <-a.full
		if !more {
			return 0, a.err
		}
		a.piece, a.rest = piece, piece
	}
	n := copy(p, a.rest)
	a.rest = a.rest[n:]
	return n, nil
}

// close returns when nothing is read any more. What is read from must be made
// to return first if it may block.
func (a *ahead) close() {
	close(a.stop)
	<-a.done
}
