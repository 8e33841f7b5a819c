package supervisor

import "slices"

// graph is who depends on whom, by name.
type graph map[string][]Dep

// met reports whether a dependency has come as far as dep asks.
func (d Dep) met(s Status) bool {
	if s.Phase == Stopped || s.Generation != s.Want.Generation {
		return false
	}
	switch d.Condition {
	case UntilStarted:
		return !s.StartedAt.IsZero() && s.Phase != Failed && s.Phase != Backoff
	case UntilCompleted:
		return s.Phase == Finished
	default:
		return s.Up()
	}
}

// closure is names and everything they depend on, dependencies first. Names
// that the graph does not know are left out.
func (g graph) closure(names []string) []string {
	var order []string
	seen := map[string]bool{}
	var visit func(string)
	visit = func(name string) {
		deps, known := g[name]
		if seen[name] || !known {
			return
		}
		seen[name] = true
		for _, d := range deps {
			visit(d.Service)
		}
		order = append(order, name)
	}
	for _, n := range names {
		visit(n)
	}
	return order
}

// dependents is everything that depends on one of names, directly or not,
// those that others depend on last; names themselves are not in it.
func (g graph) dependents(names []string) []string {
	all := make([]string, 0, len(g))
	for n := range g {
		all = append(all, n)
	}
	slices.Sort(all)
	hit := map[string]bool{}
	for _, n := range names {
		hit[n] = true
	}
	var found []string
	for _, n := range g.closure(all) {
		if hit[n] {
			continue
		}
		if slices.ContainsFunc(g[n], func(d Dep) bool { return hit[d.Service] }) {
			hit[n] = true
			found = append(found, n)
		}
	}
	slices.Reverse(found)
	return found
}

// inverse is, for each service, those that depend on it directly.
func (g graph) inverse() map[string][]string {
	up := map[string][]string{}
	for n, deps := range g {
		for _, d := range deps {
			up[d.Service] = append(up[d.Service], n)
		}
	}
	return up
}
