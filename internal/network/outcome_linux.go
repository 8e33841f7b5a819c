package network

import (
	"errors"
	"io"
	"os"
	"syscall"
)

// An outcome says what became of an attempt to connect, as far as it matters
// to whoever wanted to. Its numbers travel between gateways.
type outcome byte

const (
	connected outcome = iota
	refused
	noHost
	noNet
	failure // nobody answered, or we do not know: whoever asks tries again
)

// outcomeOf reads an error of a connect.
func outcomeOf(err error) outcome {
	switch {
	case err == nil:
		return connected
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ECONNRESET), errors.Is(err, io.EOF):
		return refused
	case errors.Is(err, syscall.ENETUNREACH):
		return noNet
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, syscall.ETIMEDOUT):
		return failure
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, os.ErrPermission), errors.Is(err, syscall.EADDRNOTAVAIL):
		return noHost
	}
	return failure
}

// outcomeError is an error that outcomeOf reads as it is.
func outcomeError(b byte) error {
	switch outcome(b) {
	case connected:
		return nil
	case refused:
		return syscall.ECONNREFUSED
	case noNet:
		return syscall.ENETUNREACH
	case noHost:
		return syscall.EHOSTUNREACH
	}
	return syscall.ETIMEDOUT
}

func readFull(r io.Reader, b []byte) error {
	_, err := io.ReadFull(r, b)
	return err
}
