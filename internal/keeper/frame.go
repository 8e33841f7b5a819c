package keeper

import (
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/locald/locald/internal/wire"
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
	Files  int            `json:"files,omitempty"`  // descriptors that come with the frame
	Behind int            `json:"behind,omitempty"` // bytes that come behind it
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
	Argv         []byte        `json:"-"`     // separated by NUL; comes behind the frame
	Words        int           `json:"words"` // bytes of Argv
	Env          []byte        `json:"-"`     // separated by NUL; comes behind Argv
	Dir          []byte        `json:"dir"`
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
	Thread int        `json:"thread,omitempty"` // of the keeper, that forked it
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

// sendRequest sends the arguments and the environment of a run as they are,
// behind the frame: they are most of what a run takes to say.
func sendRequest(w *wire.Conn, r request, files ...*os.File) error {
	var behind []byte
	if r.Run != nil {
		behind = slices.Concat(r.Run.Argv, r.Run.Env)
		r.Run.Words, r.Behind = len(r.Run.Argv), len(behind)
	}
	return w.SendWith(r, behind, files...)
}

// receiveRequest is the other end of sendRequest.
func receiveRequest(w *wire.Conn, r *request) error {
	if err := w.Receive(r); err != nil {
		return err
	}
	behind, err := w.Behind(r.Behind)
	if err != nil || r.Run == nil {
		return err
	}
	if r.Run.Words < 0 || r.Run.Words > len(behind) {
		return fmt.Errorf("request %d: %d bytes of arguments in %d", r.ID, r.Run.Words, len(behind))
	}
	r.Run.Argv, r.Run.Env = behind[:r.Run.Words], behind[r.Run.Words:]
	return nil
}
