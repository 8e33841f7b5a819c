package cli

import (
	"context"
	"fmt"
	"os"
	"sync"
	"syscall"
)

// interrupt is why a command's context ended when a signal ended it.
type interrupt struct{ signal syscall.Signal }

func (i *interrupt) Error() string { return fmt.Sprintf("interrupted (%v)", i.signal) }

// signals hands signals to whoever claimed them; unclaimed, those that are
// meant to end a program end the command's context.
type signals struct {
	listens chan struct{} // closed once they are heard

	mu      sync.Mutex
	claimed chan os.Signal
}

// watch begins to listen, until stop is called.
func (s *signals) watch(ctx context.Context, listen func() <-chan os.Signal) (_ context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	over := make(chan struct{})
	var listening sync.WaitGroup
	listening.Go(func() {
		var in <-chan os.Signal
		if listen != nil {
			in = listen()
		}
		close(s.listens)
		for {
			select {
			case sig := <-in:
				s.deliver(sig, cancel)
			case <-over:
				return
			}
		}
	})
	return ctx, func() {
		close(over)
		listening.Wait()
		cancel(nil)
	}
}

func (s *signals) deliver(sig os.Signal, cancel context.CancelCauseFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.claimed != nil {
		select {
		case s.claimed <- sig:
		default: // a claimer that is that far behind has seen enough of them
		}
		return
	}
	number, ok := sig.(syscall.Signal)
	if ok && isEnd(number) {
		cancel(&interrupt{number})
	}
}

// claim takes every signal from here on, until release is called.
func (s *signals) claim() (c <-chan os.Signal, release func()) {
	<-s.listens
	s.mu.Lock()
	defer s.mu.Unlock()
	claimed := make(chan os.Signal, 16)
	s.claimed = claimed
	return claimed, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.claimed = nil
	}
}
