package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/locald/locald/hack/containerd"
	"github.com/locald/locald/hack/podman"
)

func podmanOfOurs(ctx context.Context) (variable string, end func(), err error) {
	if missing := podman.Missing(); missing != "" {
		return "", nil, errors.New(missing)
	}
	s, err := podman.Start(ctx)
	if err != nil {
		return "", nil, err
	}
	return "CONTAINER_HOST=" + s.Host(), func() { tell(s.Close(context.WithoutCancel(ctx))) }, nil
}

func containerdOfOurs(context.Context) (variable string, end func(), err error) {
	s, err := containerd.New()
	if err != nil {
		return "", nil, err
	}
	if err := s.Start(); err != nil {
		return "", nil, errors.Join(err, s.Close())
	}
	return "CONTAINERD_ADDRESS=" + s.Address(), func() { tell(s.Close()) }, nil
}

func tell(err error) {
	if err != nil {
		fmt.Fprintf(os.Stderr, "testengines: %v\n", err)
	}
}
