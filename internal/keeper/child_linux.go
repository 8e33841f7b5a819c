package keeper

// PIDs returns the processes of the run that are there: the main one first, its
// descendants, and what lost its parent and still carries the mark.
func (c *Child) PIDs() []int {
	pids := []int{c.pid}
	// What has lost its parent, and what the main process has made its sibling.
	children, _ := childrenOfThreads(c.keeper.pid, adopting(c.keeper.pid, c.thread)...)
	for _, pid := range c.keeper.strangers(children) {
		if c.mark.Holds(pid) {
			pids = append(pids, pid)
		}
	}
	for i := 0; i < len(pids); i++ {
		below, _ := childrenOf(pids[i])
		pids = append(pids, below...)
	}
	return pids
}

// strangers returns those of the keeper's children that are no main process.
func (k *Keeper) strangers(children []int) (pids []int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	mains := make(map[int]bool, len(k.children))
	for _, c := range k.children {
		mains[c.pid] = true
	}
	for _, pid := range children {
		if !mains[pid] {
			pids = append(pids, pid)
		}
	}
	return pids
}
