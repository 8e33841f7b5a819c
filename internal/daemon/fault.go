package daemon

import (
	"context"
	"errors"

	"github.com/locald/locald/internal/config"
	"github.com/locald/locald/internal/state"
	"github.com/locald/locald/ipc"
	"github.com/locald/locald/runtime"
)

// fault is what a person is told of an error: the one place where errors of
// all rooms become codes and hints.
func fault(err error) error {
	if err == nil {
		return nil
	}
	var told *ipc.Error
	if errors.As(err, &told) {
		return told
	}
	e := &ipc.Error{Code: ipc.CodeInternal, Message: err.Error()}
	var problems *config.Error
	var known *runtime.Fault
	var damaged *state.Damaged
	switch {
	case errors.As(err, &problems):
		e.Code = ipc.CodeConfigInvalid
		for i, p := range problems.Problems {
			if i == 0 {
				e.Service = p.Service
			}
			shown := ipc.Problem{Message: p.Message, Hint: p.Hint, File: p.Pos.File, Line: p.Pos.Line, Column: p.Pos.Column}
			e.Problems = append(e.Problems, shown)
			if i == 0 {
				e.Message, e.Hint, e.File, e.Line, e.Column = p.Message, p.Hint, p.Pos.File, p.Pos.Line, p.Pos.Column
			}
		}
	case errors.As(err, &known):
		e.Code, e.Hint, e.Service = known.Code, known.Hint, known.Service
	case errors.As(err, &damaged):
		e.Code = ipc.CodeStateDamaged
	case errors.Is(err, runtime.ErrUnavailable):
		e.Code = ipc.CodeEngineUnavailable
	case errors.Is(err, context.DeadlineExceeded):
		e.Code = ipc.CodeTimeout
	}
	return e
}
