//go:build !linux

package oci

import (
	"context"
	"errors"
	"io"
	"io/fs"
)

func unpack(context.Context, string, io.Reader, bool, bool) (*contents, []Owner, error) {
	return nil, nil, &Error{Kind: Unsupported, Err: errors.New("layers are unpacked on Linux only")}
}

func privileged(string) bool { return false }

func bootID() string { return "" }

func whiteoutFile(fs.FileInfo) bool { return false }

func opaqueDirectory(string) bool { return false }
