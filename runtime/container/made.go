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

// What an engine keeps for locald.
const (
	MadeContainer = "container"
	MadeNetwork   = "network"
	MadeVolume    = "volume"
)

// Made is a container, a network or a volume that carries locald's label.
type Made struct {
	Kind    string // MadeContainer, MadeNetwork, MadeVolume
	Engine  string // "docker", "podman"
	Host    string // where that listens
	ID      string // of a volume its name
	Name    string
	Owner   runtime.Owner
	Project string // the project's name, as the label has it
	Dir     string
	Service string
	Run     runtime.RunID // of a container

	State     string           // of a container: "running", "exited"
	Published []netip.AddrPort // of a container: where it appears on this host
	Gateways  []netip.Addr     // of a network: this host's addresses in it
}

// ProjectID is the id of the project that it was made for, empty where nothing
// tells: the run says it of a container, the name of the rest.
func (m Made) ProjectID(known []string) string {
	if id, _, _, ok := m.Run.Split(); ok {
		return id
	}
	rest, ours := strings.CutPrefix(m.Name, "locald-")
	for _, id := range known {
		if ours && (rest == id || strings.HasPrefix(rest, id+"-")) {
			return id
		}
	}
	return ""
}

// Survey asks every engine that can be found, not only the one that services
// would run in, for what carries locald's label, whoever the owner is. found
// has the places where it looked, and why one could not be asked. It starts and
// changes nothing.
func Survey(ctx context.Context, env func(string) string) (made []Made, found []Found) {
	places := everyPlace(env)
	found = make([]Found, len(places))
	lists := make([][]Made, len(places))
	var asked sync.WaitGroup
	for i, p := range places {
		asked.Go(func() {
			found[i] = Found{Engine: p.engine, Host: p.host, Source: p.source, Named: p.source != usualPlace}
			lists[i], found[i].Err = survey(ctx, p, &found[i])
			_, missing := os.Lstat(strings.TrimPrefix(p.host, "unix://"))
			found[i].Absent = !found[i].Named && errors.Is(missing, fs.ErrNotExist)
		})
	}
	asked.Wait()
	seen := map[string]bool{} // one engine may be reached by several sockets
	for _, m := range slices.Concat(lists...) {
		key := m.Kind + " " + m.Engine + " " + m.ID
		if m.Kind == MadeVolume {
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

func survey(ctx context.Context, p place, f *Found) ([]Made, error) {
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
func (e *engine) labelled(kind, id, name string, labels map[string]string) Made {
	return Made{
		Kind: kind, Engine: e.name, Host: e.place.host, ID: id, Name: name, Owner: runtime.Owner(labels[labelInstance]),
		Project: labels[labelProject], Dir: labels[labelDir], Service: labels[labelService], Run: runtime.RunID(labels[labelRun]),
	}
}

func (e *engine) madeContainers(ctx context.Context) ([]Made, error) {
	found, err := e.list(ctx, labelInstance)
	var made []Made
	for _, c := range found {
		name := short(c.ID)
		if len(c.Names) > 0 {
			name = strings.TrimPrefix(c.Names[0], "/")
		}
		m := e.labelled(MadeContainer, c.ID, name, c.Labels)
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

func (e *engine) madeNetworks(ctx context.Context) ([]Made, error) {
	ctx, done := e.watched(ctx)
	defer done()
	found, err := e.cli.NetworkList(ctx, client.NetworkListOptions{Filters: make(client.Filters).Add("label", labelInstance)})
	if err != nil {
		return nil, e.fault(ctx, "list networks", err)
	}
	var made []Made
	for _, n := range found.Items {
		m := e.labelled(MadeNetwork, n.ID, n.Name, n.Labels)
		for _, config := range n.IPAM.Config {
			if config.Gateway.IsValid() {
				m.Gateways = append(m.Gateways, config.Gateway)
			}
		}
		made = append(made, m)
	}
	return made, nil
}

func (e *engine) madeVolumes(ctx context.Context) ([]Made, error) {
	ctx, done := e.watched(ctx)
	defer done()
	found, err := e.cli.VolumeList(ctx, client.VolumeListOptions{Filters: make(client.Filters).Add("label", labelInstance)})
	if err != nil {
		return nil, e.fault(ctx, "list volumes", err)
	}
	var made []Made
	for _, v := range found.Items {
		made = append(made, e.labelled(MadeVolume, v.Name, v.Name, v.Labels))
	}
	return made, nil
}
