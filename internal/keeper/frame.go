package keeper

import "time"

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
