package runtime

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
)

func TestPullsAreJoinedAndEndWithTheLastWhoWaits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var pulls Pulls[string]
		begun, ended := 0, 0
		var finish chan error
		pull := func(ctx context.Context, l *Layers) (string, error) {
			begun++
			finish = make(chan error)
			l.Set("a", Downloading, 1, 2)
			select {
			case err := <-finish:
				return "what came", err
			case <-ctx.Done():
				ended++
				return "", ctx.Err()
			}
		}
		join := func() (leave context.CancelFunc, result <-chan error, seen *[]Progress) {
			ctx, cancel := context.WithCancel(t.Context())
			came := make(chan error, 1)
			seen = new([]Progress)
			go func() {
				_, err := pulls.Join(ctx, "app:1", func(p Progress) { *seen = append(*seen, p) }, pull)
				came <- err
			}()
			synctest.Wait()
			return cancel, came, seen
		}

		leave, first, _ := join()
		stay, second, seen := join()
		defer stay()
		if begun != 1 || len(*seen) == 0 {
			t.Errorf("%d pulls; who joined was told %v", begun, *seen)
		}
		leave()
		if err := <-first; !errors.Is(err, context.Canceled) || ended != 0 {
			t.Errorf("who left got %v; %d pulls were given up", err, ended)
		}
		failed := errors.New("failed")
		finish <- failed
		if err := <-second; !errors.Is(err, failed) {
			t.Errorf("who stayed got %v", err)
		}

		leave, third, _ := join()
		if begun != 2 {
			t.Errorf("%d pulls; want another once the first was over", begun)
		}
		leave()
		if err := <-third; !errors.Is(err, context.Canceled) {
			t.Errorf("the only one, who left, got %v", err)
		}
		synctest.Wait()
		if ended != 1 {
			t.Errorf("%d pulls were given up; want the one for which nobody waits", ended)
		}
	})
}
