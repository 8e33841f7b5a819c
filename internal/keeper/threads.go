package keeper

import (
	goruntime "runtime"
	"sync"
)

// waitingThreads is how many may wait in the kernel at once.
const waitingThreads = 8

// reserveThreads makes as many threads as run at once and as wait besides, which
// the Go runtime keeps. It ends the process when it needs one and the user may
// have no more.
func reserveThreads() {
	reserve := goruntime.GOMAXPROCS(0) + waitingThreads
	var there, gone sync.WaitGroup
	there.Add(reserve)
	for range reserve {
		gone.Go(func() {
			goruntime.LockOSThread() // so that each is another
			defer goruntime.UnlockOSThread()
			there.Done()
			there.Wait()
		})
	}
	gone.Wait()
}
