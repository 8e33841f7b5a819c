package keeper

import (
	goruntime "runtime"
	"sync"
)

// idleThreads is how many threads wait for work beyond those that are used. The
// Go runtime ends the process when it needs one and the user may have no more.
const idleThreads = 16

// reserveThreads makes threads, which the Go runtime keeps.
func reserveThreads() {
	var there, gone sync.WaitGroup
	there.Add(idleThreads)
	for range idleThreads {
		gone.Go(func() {
			goruntime.LockOSThread() // so that each is another
			defer goruntime.UnlockOSThread()
			there.Done()
			there.Wait()
		})
	}
	gone.Wait()
}
