package keeper

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// request is what the daemon asks. Exactly one of the pointers is set, or none
// for a farewell. Text that may not be UTF-8 travels as bytes.
type request struct {
	ID     uint64         `json:"id"`
	Open   *openRequest   `json:"open,omitempty"`
	Run    *runRequest    `json:"run,omitempty"`
	Stop   *stopRequest   `json:"stop,omitempty"`
	Stream *streamRequest `json:"stream,omitempty"`
	Flush  *flushRequest  `json:"flush,omitempty"`
	Note   *noteRequest   `json:"note,omitempty"`
	Keep   *keepRequest   `json:"keep,omitempty"`
	Files  int            `json:"files,omitempty"` // descriptors that come with the frame
}

type openRequest struct {
	Owner    string    `json:"owner"`
	Dir      []byte    `json:"dir"`
	Logs     Retention `json:"logs"`
	NoGroups bool      `json:"no_groups,omitempty"`
}

type runRequest struct {
	Run          string        `json:"run"`
	Number       int           `json:"number"`
	Argv         []byte        `json:"argv"` // separated by NUL
	Dir          []byte        `json:"dir"`
	Env          []byte        `json:"env"` // separated by NUL
	Log          []byte        `json:"log"`
	Signal       int           `json:"signal"`
	Grace        time.Duration `json:"grace"`
	Unprivileged bool          `json:"unprivileged,omitempty"`
	Limits       *Limits       `json:"limits,omitempty"`
}

type stopRequest struct {
	Child uint64        `json:"child"` // the ID of the run's request
	Grace time.Duration `json:"grace"`
}

type streamRequest struct {
	Log    []byte `json:"log"`
	Number int    `json:"number"`
}

type flushRequest struct {
	Log    []byte `json:"log"`
	Number int    `json:"number"`
}

type noteRequest struct {
	Log    []byte    `json:"log"`
	Number int       `json:"number"`
	Text   string    `json:"text"`
	Time   time.Time `json:"time"`
}

type keepRequest struct {
	Dir  []byte    `json:"dir"`
	Logs Retention `json:"logs"`
}

// answer is what the keeper says: the answer to request ID, or with Gone the
// end of the run that request ID began. One with Store answers nothing.
type answer struct {
	ID     uint64     `json:"id"`
	PID    int        `json:"pid,omitempty"`
	Number uint64     `json:"number,omitempty"`
	Gone   *Exit      `json:"gone,omitempty"`
	Left   []Survivor `json:"left,omitempty"`
	Error  *Error     `json:"error,omitempty"`
	Store  *storeNews `json:"store,omitempty"`
}

// storeNews is why output for a log store cannot be stored, or with no cause
// that it can again.
type storeNews struct {
	Log   []byte `json:"log"`
	Cause string `json:"cause,omitempty"`
}

// maxFrame is far above what an environment and a command line may have.
const maxFrame = 32 << 20

// wire is one end of the socket pair. Sending is safe from many goroutines,
// receiving is for one.
type wire struct {
	conn *net.UnixConn

	sending sync.Mutex

	in    []byte // received and not yet taken
	chunk []byte
	oob   []byte
	files []int // received and not yet taken
}

func newWire(conn *net.UnixConn) *wire {
	return &wire{conn: conn, chunk: make([]byte, 32<<10), oob: make([]byte, unix.CmsgSpace(16*4))}
}

func (w *wire) send(v any, files ...*os.File) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if len(body) > maxFrame {
		return fmt.Errorf("frame of %d bytes: at most %d", len(body), maxFrame)
	}
	frame := binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(body)), uint32(len(body)))
	frame = append(frame, body...)
	var rights []byte
	if len(files) > 0 {
		fds := make([]int, len(files))
		for i, f := range files {
			fds[i] = int(f.Fd())
		}
		rights = unix.UnixRights(fds...)
	}
	w.sending.Lock()
	defer w.sending.Unlock()
	n, _, err := w.conn.WriteMsgUnix(frame, rights, nil)
	if err == nil && n < len(frame) {
		_, err = w.conn.Write(frame[n:])
	}
	return err
}

// receive decodes the next frame into v. Descriptors are left in w.files; they
// arrive no later than the frame they were sent with.
func (w *wire) receive(v any) error {
	for len(w.in) < 4 || len(w.in) < 4+int(binary.BigEndian.Uint32(w.in)) {
		if len(w.in) >= 4 && binary.BigEndian.Uint32(w.in) > maxFrame {
			return fmt.Errorf("frame of %d bytes: at most %d", binary.BigEndian.Uint32(w.in), maxFrame)
		}
		if err := w.fill(); err != nil {
			return err
		}
	}
	size := 4 + int(binary.BigEndian.Uint32(w.in))
	err := json.Unmarshal(w.in[4:size], v)
	w.in = w.in[size:]
	if len(w.in) == 0 {
		w.in = nil
	}
	return err
}

func (w *wire) fill() error {
	n, oobn, _, _, err := w.conn.ReadMsgUnix(w.chunk, w.oob)
	if oobn > 0 {
		messages, err := unix.ParseSocketControlMessage(w.oob[:oobn])
		if err != nil {
			return err
		}
		for _, m := range messages {
			fds, err := unix.ParseUnixRights(&m)
			if err != nil {
				return err
			}
			w.files = append(w.files, fds...)
		}
	}
	if err != nil {
		return err
	}
	if n == 0 {
		return net.ErrClosed
	}
	w.in = append(w.in, w.chunk[:n]...)
	return nil
}

// take hands over n received descriptors.
func (w *wire) take(n int) ([]int, error) {
	if n > len(w.files) {
		return nil, fmt.Errorf("frame with %d descriptors: %d have come", n, len(w.files))
	}
	files := w.files[:n:n]
	w.files = w.files[n:]
	return files, nil
}
