package remote

import (
	"context"
	"errors"

	"github.com/locald/locald/runtime"
)

// Failure is an error on its way.
type Failure struct {
	Text  string             `json:"text"`
	Kinds []string           `json:"kinds,omitempty"`
	Fault *faultOnWire       `json:"fault,omitempty"`
	Left  []runtime.Survivor `json:"left,omitempty"`
}

type faultOnWire struct {
	Service, Code, Hint string
	Text                string
}

// kinds are the errors that callers act on, by their names on the wire.
var kinds = map[string]error{
	"gone":        runtime.ErrGone,
	"invalid":     runtime.ErrInvalid,
	"unavailable": runtime.ErrUnavailable,
	"unsupported": errors.ErrUnsupported,
	"canceled":    context.Canceled,
	"deadline":    context.DeadlineExceeded,
}

// Pack makes an error fit to travel; nil is none.
func Pack(err error) *Failure {
	if err == nil {
		return nil
	}
	f := &Failure{Text: err.Error()}
	for name, kind := range kinds {
		if errors.Is(err, kind) {
			f.Kinds = append(f.Kinds, name)
		}
	}
	if fault, ok := errors.AsType[*runtime.Fault](err); ok {
		f.Fault = &faultOnWire{fault.Service, fault.Code, fault.Hint, fault.Error()}
	}
	if left, ok := errors.AsType[*runtime.Survivors](err); ok {
		f.Left = left.Left
	}
	return f
}

// Unpack is an error that says and is the same, as far as callers can tell.
func (f *Failure) Unpack() error {
	if f == nil {
		return nil
	}
	e := &told{text: f.Text}
	if f.Fault != nil {
		e.what = append(e.what, &runtime.Fault{Service: f.Fault.Service, Code: f.Fault.Code, Hint: f.Fault.Hint, Err: errors.New(f.Fault.Text)})
	}
	if f.Left != nil {
		e.what = append(e.what, &runtime.Survivors{Left: f.Left})
	}
	for _, name := range f.Kinds {
		if kind, known := kinds[name]; known {
			e.what = append(e.what, kind)
		}
	}
	return e
}

// told is an error of the other process.
type told struct {
	text string
	what []error
}

func (e *told) Error() string   { return e.text }
func (e *told) Unwrap() []error { return e.what }
