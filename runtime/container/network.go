package container

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	goruntime "runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"

	"github.com/locald/locald/runtime"
)

// networks counts who needs which project network, so that it is there when
// the first container needs it and gone after the last.
type networks struct {
	mu  sync.Mutex
	use map[string]*networkUse // by name
}

// networkUse is locked while the network is made or removed.
type networkUse struct {
	mu    sync.Mutex
	users int
}

// projectNetwork is a network as the engine has it.
type projectNetwork struct {
	id, name string
	subnet   netip.Prefix
	gateway  netip.Addr
	local    bool // the gateway is an address of this host, or will be one
}

func networkName(project runtime.Project) string { return "locald-" + project.ID }

func (n *networks) of(name string) *networkUse {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.use[name] == nil {
		n.use[name] = &networkUse{}
	}
	return n.use[name]
}

// join makes sure that the project's network is there and stays until leave.
func (n *networks) join(ctx context.Context, e *engine, spec runtime.Spec) (net *projectNetwork, leave func(context.Context) error, err error) {
	name := networkName(spec.Project)
	u := n.of(name)
	u.mu.Lock()
	defer u.mu.Unlock()
	found, err := e.network(ctx, name)
	if err == nil && found == nil {
		found, err = e.createNetwork(ctx, name, spec)
	}
	if err != nil {
		return nil, nil, err
	}
	if owner := found.Labels[labelInstance]; owner != string(spec.Owner) {
		return nil, nil, foreign("network", name, owner, e.name+" network rm "+name)
	}
	u.users++
	net = &projectNetwork{id: found.ID, name: name}
	for _, config := range found.IPAM.Config {
		if config.Subnet.Addr().Is4() {
			net.subnet, net.gateway = config.Subnet, config.Gateway
		}
	}
	net.local = ofThisHost(net.gateway) || e.dialect.lazy && e.here() && net.gateway.IsValid()
	return net, func(ctx context.Context) error { return u.leave(ctx, e, name) }, nil
}

// hold counts a user of a network that is there already.
func (n *networks) hold(e *engine, name string) (leave func(context.Context) error) {
	u := n.of(name)
	u.mu.Lock()
	defer u.mu.Unlock()
	u.users++
	return func(ctx context.Context) error { return u.leave(ctx, e, name) }
}

func (u *networkUse) leave(ctx context.Context, e *engine, name string) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.users--
	if u.users > 0 {
		return nil
	}
	return e.removeNetwork(ctx, name)
}

// sweep removes the owner's networks that nobody uses.
func (n *networks) sweep(ctx context.Context, e *engine, owner string) error {
	call, done := e.watched(ctx)
	defer done()
	found, err := e.cli.NetworkList(call, client.NetworkListOptions{Filters: make(client.Filters).Add("label", owner)})
	if err != nil {
		return e.fault(call, "list networks", err)
	}
	var problems []error
	for _, item := range found.Items {
		problems = append(problems, n.drop(ctx, e, item.Name))
	}
	return errors.Join(problems...)
}

// drop removes a network that nobody here uses.
func (n *networks) drop(ctx context.Context, e *engine, name string) error {
	u := n.of(name)
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.users > 0 {
		return nil
	}
	return e.removeNetwork(ctx, name)
}

// network finds one by its exact name; nil when there is none.
func (e *engine) network(ctx context.Context, name string) (*network.Inspect, error) {
	ctx, done := e.watched(ctx)
	defer done()
	found, err := e.cli.NetworkList(ctx, client.NetworkListOptions{Filters: make(client.Filters).Add("name", name)})
	if err != nil {
		return nil, e.fault(ctx, "list networks", err)
	}
	for _, item := range found.Items {
		if item.Name != name { // the filter matches parts of names
			continue
		}
		var whole client.NetworkInspectResult
		err := e.steady(func() (err error) {
			whole, err = e.cli.NetworkInspect(ctx, item.ID, client.NetworkInspectOptions{})
			return err
		})
		if e.notFound(err) {
			continue
		}
		return &whole.Network, e.fault(ctx, "network "+name, err)
	}
	return nil, nil
}

func (e *engine) createNetwork(ctx context.Context, name string, spec runtime.Spec) (*network.Inspect, error) {
	call, done := e.watched(ctx)
	defer done()
	_, err := e.cli.NetworkCreate(call, name, client.NetworkCreateOptions{Driver: "bridge", Labels: map[string]string{
		labelInstance: string(spec.Owner), labelProject: spec.Project.Name, labelDir: spec.Project.Dir,
	}})
	switch {
	case err == nil, lost(err), e.conflict(err):
		// An answer that was lost, or somebody who was quicker: it is looked up.
	case strings.Contains(err.Error(), "address pool"):
		return nil, &runtime.Fault{Code: codeUnavailable, Hint: e.name + " network prune", Err: fmt.Errorf("network %s: the engine has no addresses left for another network: %w", name, err)}
	default:
		return nil, e.fault(call, "create network "+name, err)
	}
	found, lookErr := e.network(ctx, name)
	if lookErr == nil && found == nil {
		return nil, e.fault(call, "create network "+name, errOr(err))
	}
	return found, lookErr
}

// removeNetwork removes a network unless a container of ours belongs to it. One
// that somebody else has connected to stays.
func (e *engine) removeNetwork(ctx context.Context, name string) error {
	belong, err := e.list(ctx, labelNetwork+"="+name)
	if err != nil || len(belong) > 0 {
		return err
	}
	found, err := e.network(ctx, name)
	if err != nil || found == nil || found.Labels[labelInstance] == "" || len(found.Containers) > 0 {
		return err
	}
	ctx, done := e.watched(ctx)
	defer done()
	err = e.steady(func() error {
		_, err := e.cli.NetworkRemove(ctx, found.ID, client.NetworkRemoveOptions{})
		return err
	})
	if e.notFound(err) || cerrdefs.IsPermissionDenied(err) || e.conflict(err) {
		return nil
	}
	return e.fault(ctx, "remove network "+name, err)
}

// here reports whether the engine's networks are this host's own.
func (e *engine) here() bool {
	return goruntime.GOOS == "linux" && !e.rootless && strings.HasPrefix(e.place.host, "unix://")
}

// nobodyNames reports whether nothing listens for questions about names at a
// network's gateway. What listens there begins with the network's first
// container, so one answer that nobody does is not believed.
func nobodyNames(ctx context.Context, gateway netip.Addr) bool {
	const tries, pause = 3, time.Second / 2
	for range tries {
		if !refuses(ctx, netip.AddrPortFrom(gateway, 53)) {
			return false
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// refuses reports whether a host says of its UDP port that nobody is there.
func refuses(ctx context.Context, address netip.AddrPort) bool {
	c, err := new(net.Dialer).DialContext(ctx, "udp", address.String())
	if err != nil {
		return false
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Second))
	if _, err := c.Write(make([]byte, 12)); err != nil { // a question of nothing
		return false
	}
	_, err = c.Read(make([]byte, 512))
	return errors.Is(err, syscall.ECONNREFUSED)
}

func ofThisHost(address netip.Addr) bool {
	if !address.IsValid() {
		return false
	}
	all, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	for _, a := range all {
		if prefix, err := netip.ParsePrefix(a.String()); err == nil && prefix.Addr().Unmap() == address {
			return true
		}
	}
	return false
}

// foreign is the error for a name that is taken by what is not ours to touch.
func foreign(what, name, owner, hint string) error {
	belongs := "was not made by locald"
	if owner != "" {
		belongs = "belongs to another locald instance (" + owner + ")"
	}
	return &runtime.Fault{Code: "permission_denied", Hint: hint, Err: fmt.Errorf("%s %s exists and %s", what, name, belongs)}
}

func errOr(err error) error {
	if err == nil {
		return errors.New("the engine ended the answer")
	}
	return err
}
