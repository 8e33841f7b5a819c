//go:build !linux

package container

import "github.com/moby/moby/api/types/container"

func allowed() []*container.Ulimit { return nil }
