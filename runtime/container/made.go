package container

import (
	"context"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/moby/moby/client"

	"github.com/locald/locald/runtime"
)

// Survey asks every engine that can be found, not only the one that services
// would run in, for what carries locald's label, whoever the owner is. found
// has the places where it looked, and why one could not be asked. It starts and
// changes nothing.
func Survey(ctx context.Context, env func(string) string) (made []runtime.Made, found []runtime.FoundEngine) {
	places := everyPlace(env)
	found = make([]runtime.FoundEngine, len(places))
	lists := make([][]runtime.Made, len(places))
	var asked sync.WaitGroup
	for i, p := range places {
		asked.Go(func() {
			found[i] = runtime.FoundEngine{Engine: p.engine, Host: p.host, Source: p.source, Named: p.source != usualPlace}
			lists[i], found[i].Err = survey(ctx, p, &found[i])
			_, missing := os.Lstat(strings.TrimPrefix(p.host, "unix://"))
			found[i].Absent = !found[i].Named && errors.Is(missing, fs.ErrNotExist)
		})
	}
	asked.Wait()
	seen := map[string]bool{} // one engine may be reached by several sockets
	for _, m := range slices.Concat(lists...) {
		key := m.Kind + " " + m.Engine + " " + m.ID
		if m.Kind == runtime.MadeVolume {
			key += " " + string(m.Owner)
		}
		if !seen[key] {
			seen[key] = true
			made = append(made, m)
		}
	}
	return made, found
}

// everyPlace is every place where an engine of this user may be, those that
// the user named first.
func everyPlace(env func(string) string) []place {
	var places []place
	seen := map[string]bool{}
	for _, p := range slices.Concat(placesFor(env, nameAuto), placesFor(env, namePodman), usualPlaces(env, nameAuto)) {
		where := p.host
		if path, ok := strings.CutPrefix(p.host, "unix://"); ok {
			where = path
			if real, err := filepath.EvalSymlinks(path); err == nil {
				where = real
			}
		}
		if !seen[where] {
			seen[where] = true
			places = append(places, p)
		}
	}
	return places
}

func survey(ctx context.Context, p place, f *runtime.FoundEngine) ([]runtime.Made, error) {
	e, err := dial(ctx, p, nameAuto)
	if err != nil {
		return nil, err
	}
	defer e.close()
	f.Engine, f.Version = e.name, e.version
	made, err := e.madeContainers(ctx)
	if err != nil {
		return nil, err
	}
	networks, err := e.madeNetworks(ctx)
	if err != nil {
		return nil, err
	}
	volumes, err := e.madeVolumes(ctx)
	return slices.Concat(made, networks, volumes), err
}

// labelled is what the labels tell.
func (e *engine) labelled(kind, id, name string, labels map[string]string) runtime.Made {
	return runtime.Made{
		Kind: kind, Engine: e.name, Host: e.place.host, ID: id, Name: name, Owner: runtime.Owner(labels[labelInstance]),
		Project: labels[labelProject], Dir: labels[labelDir], Service: labels[labelService], Run: runtime.RunID(labels[labelRun]),
	}
}

func (e *engine) madeContainers(ctx context.Context) ([]runtime.Made, error) {
	found, err := e.list(ctx, labelInstance)
	var made []runtime.Made
	for _, c := range found {
		name := short(c.ID)
		if len(c.Names) > 0 {
			name = strings.TrimPrefix(c.Names[0], "/")
		}
		m := e.labelled(runtime.MadeContainer, c.ID, name, c.Labels)
		m.State = string(c.State)
		for _, p := range c.Ports {
			if p.PublicPort != 0 {
				m.Published = append(m.Published, netip.AddrPortFrom(p.IP, p.PublicPort))
			}
		}
		slices.SortFunc(m.Published, netip.AddrPort.Compare)
		made = append(made, m)
	}
	return made, err
}

func (e *engine) madeNetworks(ctx context.Context) ([]runtime.Made, error) {
	ctx, done := e.watched(ctx)
	defer done()
	found, err := e.cli.NetworkList(ctx, client.NetworkListOptions{Filters: make(client.Filters).Add("label", labelInstance)})
	if err != nil {
		return nil, e.fault(ctx, "list networks", err)
	}
	var made []runtime.Made
	for _, n := range found.Items {
		m := e.labelled(runtime.MadeNetwork, n.ID, n.Name, n.Labels)
		for _, config := range n.IPAM.Config {
			if config.Gateway.IsValid() {
				m.Gateways = append(m.Gateways, config.Gateway)
			}
		}
		made = append(made, m)
	}
	return made, nil
}

func (e *engine) madeVolumes(ctx context.Context) ([]runtime.Made, error) {
	ctx, done := e.watched(ctx)
	defer done()
	found, err := e.cli.VolumeList(ctx, client.VolumeListOptions{Filters: make(client.Filters).Add("label", labelInstance)})
	if err != nil {
		return nil, e.fault(ctx, "list volumes", err)
	}
	var made []runtime.Made
	for _, v := range found.Items {
		made = append(made, e.labelled(runtime.MadeVolume, v.Name, v.Name, v.Labels))
	}
	return made, nil
}
