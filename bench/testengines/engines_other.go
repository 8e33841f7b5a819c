//go:build !linux

package main

import (
	"context"
	"errors"
)

func podmanOfOurs(context.Context) (string, func(), error) {
	return "", nil, errors.New("it needs Linux")
}

func containerdOfOurs(context.Context) (string, func(), error) {
	return "", nil, errors.New("it needs Linux")
}
