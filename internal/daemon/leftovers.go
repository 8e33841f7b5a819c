package daemon

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/locald/locald/internal/config"
	"github.com/locald/locald/internal/engines"
	"github.com/locald/locald/internal/keeper"
	"github.com/locald/locald/internal/sockets"
	"github.com/locald/locald/internal/state"
	"github.com/locald/locald/ipc"
	"github.com/locald/locald/runtime"
)

// Leftovers lists everything that the daemons of a state directory made and
// that is still there, by the marks and labels that it carries and by where
// files are put. It needs no daemon, and is for when none runs: nothing that
// it finds runs on purpose then. It starts, changes and removes nothing.
func Leftovers(ctx context.Context, places state.Places, environ []string, args ipc.LeftArgs) (ipc.Leftovers, error) {
	speaker := engines.New(engines.Options{Dir: places.Dir, Owner: state.Store{Dir: places.Dir}.Look().Owner, Environ: environ, Log: os.Stderr, Passing: true})
	defer func() { _ = speaker.Close() }() // it was only asked
	return survey(ctx, places, speaker, args, live{})
}

// patience is how long what is on its way out is given before it counts as
// left, and rhythm how often it is looked at.
const (
	patience = 2 * time.Second
	rhythm   = 200 * time.Millisecond
)

// remains answers what is there besides what this daemon keeps.
func (d *Daemon) remains(ctx context.Context, args ipc.LeftArgs) (ipc.Leftovers, error) {
	places := d.options.Places
	places.Socket = d.socket
	for until := time.Now().Add(patience); ; {
		found, err := survey(ctx, places, d.speaker, args, d.live())
		if err != nil || len(found.Unwanted()) == 0 || time.Now().After(until) {
			return found, err
		}
		select {
		case <-ctx.Done():
			return found, ctx.Err()
		case <-time.After(rhythm):
		}
	}
}

// live is what a daemon keeps. The zero value is no daemon.
type live struct {
	daemon   int                    // its process
	runs     map[runtime.RunID]bool // that are wanted, or on their way out
	mains    map[int]runtime.RunID  // by their main process
	services map[string]bool        // "project/service"
}

func (d *Daemon) live() live {
	l := live{daemon: os.Getpid(), runs: map[runtime.RunID]bool{}, mains: map[int]runtime.RunID{}, services: map[string]bool{}}
	for _, p := range d.known() {
		for name, s := range p.View().Status {
			if !s.Phase.Live() {
				continue
			}
			run := runtime.Spec{Project: runtime.Project{ID: p.ID()}, Service: name, Run: s.Run}.ID()
			l.runs[run], l.services[p.ID()+"/"+name] = true, true
			if s.Info.PID != 0 {
				l.mains[s.Info.PID] = run
			}
		}
	}
	return l
}

// thing is one finding with the id of its project, which need not be on record.
type thing struct {
	ipc.Thing
	project string
}

// search is one look at everything.
type search struct {
	places state.Places
	seen   state.Seen
	live   live
	args   ipc.LeftArgs

	processes []thing // by which ports are found
	gateways  map[string]thing
	things    []thing
}

func survey(ctx context.Context, places state.Places, speaker *engines.Process, args ipc.LeftArgs, l live) (ipc.Leftovers, error) {
	s := &search{places: places, seen: state.Store{Dir: places.Dir}.Look(), live: l, args: args, gateways: map[string]thing{}}
	if err := s.lookForProcesses(ctx); err != nil {
		return ipc.Leftovers{}, err
	}
	found, err := speaker.Survey(ctx)
	if ctx.Err() != nil {
		return ipc.Leftovers{}, ctx.Err()
	}
	if err != nil { // what else there is can be told all the same
		s.add(thing{Thing: ipc.Thing{Kind: "engine", State: ipc.ThingUnknown, Name: "all", Detail: err.Error(), Remedy: hintOf(err)}})
	}
	s.inEngines(found)
	s.beside(found.Files)
	s.lookForPorts()
	s.lookForFiles()
	return s.answer(), nil
}

// answer is what was found of what was asked for.
func (s *search) answer() ipc.Leftovers {
	found := ipc.Leftovers{Things: []ipc.Thing{}}
	for _, t := range s.things {
		if s.asked(t) {
			found.Things = append(found.Things, t.Thing)
		}
	}
	order := []string{ipc.ThingLeft, ipc.ThingUnknown, ipc.ThingForeign, ipc.ThingKept, ipc.ThingUsed}
	kinds := []string{"process", "container", "network", "port", "volume", "file"}
	slices.SortStableFunc(found.Things, func(a, b ipc.Thing) int {
		return cmp.Or(
			cmp.Compare(slices.Index(order, a.State), slices.Index(order, b.State)),
			cmp.Compare(a.Project, b.Project),
			cmp.Compare(slices.Index(kinds, a.Kind), slices.Index(kinds, b.Kind)),
			cmp.Compare(a.Service, b.Service),
		)
	})
	return found
}

func (s *search) asked(t thing) bool {
	if s.args.Dir == "" {
		return true
	}
	dir := s.args.Dir
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		dir = real
	}
	if t.Dir == "" && t.Kind == "process" && t.State == ipc.ThingLeft {
		return true // it does not tell whose it is: it may be of this project
	}
	if t.Dir != dir || t.State == ipc.ThingForeign {
		return false
	}
	return len(s.args.Services) == 0 || slices.Contains(s.args.Services, t.Service) || t.Kind == "engine"
}

// add keeps a finding, with what is known of its project.
func (s *search) add(t thing) thing {
	if p, known := s.projectOf(t.project); known {
		t.Project, t.Dir = p.Name, p.Dir
	}
	s.things = append(s.things, t)
	return t
}

func (s *search) projectOf(id string) (state.SeenProject, bool) {
	i := slices.IndexFunc(s.seen.Projects, func(p state.SeenProject) bool { return p.ID == id && p.Dir != "" })
	if i < 0 {
		return state.SeenProject{}, false
	}
	return s.seen.Projects[i], true
}

// command is what to type: locald with these words, for the daemon and the
// project that are meant.
func (s *search) command(project string, words ...string) string {
	line := []string{"locald"}
	if s.places.Sandbox != "" && s.places.Socket == state.Short(filepath.Join(s.places.Dir, "locald.sock")) {
		line = append(line, "--sandbox", s.places.Sandbox)
	}
	if p, known := s.projectOf(project); known {
		line = append(line, "-C", quoted(p.Dir))
	}
	return strings.Join(append(line, words...), " ")
}

// quoted is a path as a shell takes it.
func quoted(path string) string {
	if path != "" && !strings.ContainsFunc(path, func(r rune) bool {
		return !strings.ContainsRune("/._-+=:@%,", r) && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && r < 0x80
	}) {
		return path
	}
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}

// canDown reports whether "locald down" would know the project and service.
func (s *search) canDown(project, service string) bool {
	p, known := s.projectOf(project)
	if !known {
		return false
	}
	if _, err := os.Stat(p.Dir); err != nil {
		return false
	}
	_, asked := p.Wants[service]
	return asked
}

func (s *search) lookForProcesses(ctx context.Context) error {
	if s.seen.Owner == "" {
		return nil // there was never a daemon here
	}
	owner := string(s.seen.Owner)
	found, err := keeper.Find(ctx, s.places.Dir, owner)
	if err != nil {
		return err
	}
	keepers, err := keeper.Keepers(owner)
	if err != nil {
		return err
	}
	for _, pid := range keepers {
		t := thing{Thing: ipc.Thing{Kind: "process", State: ipc.ThingUsed, PID: pid, Detail: "the keeper"}}
		if s.live.daemon == 0 {
			t.State, t.Detail = ipc.ThingLeft, "the keeper of a daemon that is gone; it ends what it held, and then itself"
			t.Remedy = s.command("", "server", "restart")
		}
		s.process(t)
	}
	if s.live.daemon != 0 {
		s.process(thing{Thing: ipc.Thing{Kind: "process", State: ipc.ThingUsed, PID: s.live.daemon, Detail: "the daemon"}})
	}
	for _, f := range found {
		f.PIDs = slices.DeleteFunc(f.PIDs, func(pid int) bool { return slices.Contains(keepers, pid) })
		s.run(f, len(keepers) > 0)
	}
	return nil
}

// run adds the processes of one run.
func (s *search) run(f keeper.Found, kept bool) {
	id := runtime.RunID(f.Mark.Run)
	for _, pid := range f.PIDs {
		if run, main := s.live.mains[pid]; main && id == "" {
			id = run // its processes have overwritten their environment
		}
	}
	project, service, run, _ := id.Split()
	for _, pid := range f.PIDs {
		t := thing{project: project, Thing: ipc.Thing{Kind: "process", State: ipc.ThingLeft, PID: pid, Service: service, Run: run}}
		switch {
		case s.live.runs[id]:
			t.State = ipc.ThingUsed
		case s.live.daemon == 0 && kept:
			t.Detail = "its keeper is ending it"
			t.Remedy = s.command(project, "down")
		case s.live.daemon == 0:
			t.Remedy = s.command(project, "down")
		case s.canDown(project, service):
			t.Detail = "its run is over"
			t.Remedy = s.command(project, "down", service)
		default:
			t.Detail = "its run is over"
			t.Remedy = s.command("", "server", "restart")
		}
		if t.State == ipc.ThingLeft && !s.canDown(project, service) {
			t.Remedy = s.command("", "server", "restart")
		}
		s.process(t)
	}
}

// process adds one, unless it has ended meanwhile.
func (s *search) process(t thing) {
	shown, there := keeper.Show(t.PID)
	if !there {
		return
	}
	t.Name = commandLine(shown.Argv)
	switch {
	case t.State != ipc.ThingLeft:
	case shown.Held != "":
		t.Detail = shown.Held
	case shown.UID != os.Getuid() && os.Getuid() != 0:
		t.Detail = fmt.Sprintf("belongs to uid %d", shown.UID)
		t.Remedy = fmt.Sprintf("sudo kill -9 %d", t.PID)
	}
	s.processes = append(s.processes, s.add(t))
}

// longestCommand is how much of a command line is shown.
const longestCommand = 200

// commandLine is a command as people know it, with what is secret masked.
func commandLine(argv []string) string {
	words := make([]string, len(argv))
	for i, w := range argv {
		name, value, assigned := strings.Cut(w, "=")
		if assigned && config.Secret(strings.TrimLeft(name, "-"), value) {
			w = name + "=" + config.Mask
		}
		words[i] = config.MaskURL(w)
	}
	line := []rune(strings.ToValidUTF8(strings.Join(words, " "), "\uFFFD"))
	if len(line) > longestCommand {
		line = append(line[:longestCommand], '…')
	}
	return string(line)
}

// inEngines adds what carries our label in any engine, and separately what
// carries the label of a state directory that is not here.
func (s *search) inEngines(found engines.Survey) {
	ids := make([]string, len(s.seen.Projects))
	for i, p := range s.seen.Projects {
		ids[i] = p.ID
	}
	slices.SortFunc(ids, func(a, b string) int { return cmp.Compare(len(b), len(a)) }) // an id may begin with another
	owners := s.places.Owners()
	used := map[string]bool{} // projects of which a container runs on purpose
	for service := range s.live.services {
		id, _, _ := strings.Cut(service, "/")
		used[id] = true
	}
	for _, m := range found.Made {
		switch {
		case m.Owner == s.seen.Owner && m.Owner != "":
			s.made(m, m.ProjectID(ids), used)
		case !slices.Contains(owners, m.Owner) && !running(m.Owner):
			s.add(thing{Thing: ipc.Thing{
				Kind: m.Kind, State: ipc.ThingForeign, Name: m.Name, ID: shortID(m), Engine: m.Engine, Project: m.Project, Dir: m.Dir, Service: m.Service,
				Detail: "made by instance " + string(m.Owner) + ", whose state directory is not below " + rootOf(s.places),
				Remedy: removal(m),
			}})
		}
	}
	s.unasked(found.Asked)
}

// running reports whether a daemon of another state directory has something
// running now: then what it made is its own business.
func running(owner runtime.Owner) bool {
	if owner == "" {
		return false
	}
	pids, err := keeper.Keepers(string(owner))
	return err == nil && len(pids) > 0
}

func rootOf(p state.Places) string {
	if p.Sandbox != "" {
		return filepath.Dir(filepath.Dir(p.Dir))
	}
	return p.Dir
}

// made adds what an engine has of ours.
func (s *search) made(m runtime.Made, project string, used map[string]bool) {
	_, _, run, _ := m.Run.Split()
	t := thing{project: project, Thing: ipc.Thing{
		Kind: m.Kind, State: ipc.ThingLeft, Name: m.Name, ID: shortID(m), Engine: m.Engine,
		Project: m.Project, Dir: m.Dir, Service: m.Service, Run: run, Remedy: removal(m),
	}}
	switch m.Kind {
	case runtime.MadeContainer:
		t.Detail = m.State
		if s.live.runs[m.Run] {
			t.State, t.Remedy = ipc.ThingUsed, ""
		}
	case runtime.MadeNetwork:
		if used[project] {
			t.State, t.Remedy = ipc.ThingUsed, ""
		}
	case runtime.MadeVolume:
		s.volume(&t)
	}
	t = s.add(t)
	for _, at := range m.Published {
		p := t
		p.Kind, p.Name, p.ID, p.Detail = "port", at.String(), "", "published by container "+m.Name
		s.add(p)
	}
	for _, gateway := range m.Gateways {
		s.gateways[gateway.String()] = t
	}
}

// volume judges data in an engine: it is kept while its project is on record.
func (s *search) volume(t *thing) {
	if _, known := s.projectOf(t.project); !known {
		t.Detail = "data of a project that is not on record"
		return
	}
	t.Detail = "data"
	switch {
	case s.live.services[t.project+"/"+t.Service]:
		t.State, t.Remedy = ipc.ThingUsed, ""
		return
	case !s.args.Volumes:
		t.State = ipc.ThingKept
	default:
		return // it should have gone with the rest
	}
	if s.canDown(t.project, t.Service) {
		t.Remedy = s.command(t.project, "down", "--volumes", t.Service)
	}
}

// removal is what removes a thing from its engine.
func removal(m runtime.Made) string {
	switch m.Kind {
	case runtime.MadeContainer:
		return m.Engine + " rm -f " + m.Name
	case runtime.MadeNetwork:
		return m.Engine + " network rm " + m.Name
	}
	return m.Engine + " volume rm " + m.Name
}

func shortID(m runtime.Made) string {
	if m.Kind == runtime.MadeVolume {
		return ""
	}
	return m.ID[:min(len(m.ID), 12)]
}

// unasked adds the engines in which something may be left and that could not
// be asked, where a project has services that are containers.
func (s *search) unasked(asked []runtime.FoundEngine) {
	for _, p := range s.seen.Projects {
		for _, engine := range contained(p) {
			if f, silent := silentFor(engine, asked); silent {
				s.add(thing{project: p.ID, Thing: ipc.Thing{
					Kind: "engine", State: ipc.ThingUnknown, Name: f.Host, Engine: f.Engine, Detail: f.Err.Error(), Remedy: hintOf(f.Err),
				}})
				break
			}
		}
	}
}

// silentFor is the engine that a project's containers may be in and that does
// not answer.
func silentFor(engine string, asked []runtime.FoundEngine) (runtime.FoundEngine, bool) {
	var silent []runtime.FoundEngine
	for _, f := range asked {
		matches := engine == runtime.EngineAuto || f.Engine == engine
		switch {
		case f.Err == nil && matches && !slices.ContainsFunc(silent, func(s runtime.FoundEngine) bool { return s.Named }):
			return f, false
		case f.Err != nil && matches:
			silent = append(silent, f)
		}
	}
	if len(silent) == 0 {
		return runtime.FoundEngine{}, false
	}
	slices.SortStableFunc(silent, func(a, b runtime.FoundEngine) int { return cmp.Compare(rank(a), rank(b)) })
	return silent[0], true
}

// rank orders the places that do not answer by how likely they are meant.
func rank(f runtime.FoundEngine) int {
	switch {
	case f.Named:
		return 0
	case !f.Absent:
		return 1
	}
	return 2
}

// contained is the engines that services of a project run in, or ran.
func contained(p state.SeenProject) (engines []string) {
	engines = p.Engines
	if len(engines) == 0 {
		engines = []string{runtime.EngineAuto}
	}
	uses := false
	for _, svc := range p.Services {
		uses = uses || svc.Volume
	}
	sources := make([]config.Source, len(p.Environment.Sources))
	for i, src := range p.Environment.Sources {
		sources[i] = config.Source{Path: src.Path, Content: src.Content}
	}
	conf, err := config.Load(config.Options{Dir: p.Dir, File: p.File, Read: config.Recorded(sources)})
	if err == nil { // otherwise nothing of it was ever started, or its record is damaged
		for _, c := range conf.Services {
			uses = uses || c.Contained() && p.Services[c.Name].Started()
		}
	}
	if !uses {
		return nil
	}
	return engines
}

func hintOf(err error) string {
	if f, ok := fault(err).(*ipc.Error); ok { //nolint:errorlint // fault returns nothing else
		return f.Hint
	}
	return ""
}

// lookForPorts adds what the processes that were found listen on, and the
// ports that services will have again.
func (s *search) lookForPorts() {
	listening, err := sockets.Listening()
	if err != nil {
		listening = nil // where the system does not tell, only the record does
	}
	for _, holder := range s.processes {
		inodes, err := sockets.Inodes(holder.PID)
		if err != nil {
			continue // gone, or not ours to look into
		}
		for _, l := range listening {
			if inodes[l.Inode] {
				s.port(holder, l)
			}
		}
	}
	for _, p := range s.seen.Projects {
		for _, name := range slices.Sorted(maps.Keys(p.Services)) {
			s.recordedPorts(p, p.Services[name])
		}
	}
}

// port adds what one process listens on.
func (s *search) port(holder thing, l sockets.Socket) {
	t := holder
	t.Kind, t.Name = "port", l.Addr.String()
	t.Detail = fmt.Sprintf("held by process %d", holder.PID)
	network, forwarded := s.gateways[l.Addr.Addr().String()]
	switch {
	case holder.PID != s.live.daemon:
	case forwarded:
		t.project, t.Project, t.Dir, t.State = network.project, network.Project, network.Dir, network.State
		t.Detail = "the way from network " + network.Name + " to this host"
	default:
		t.State, t.Detail = ipc.ThingLeft, "the way from a network that is gone"
	}
	if t.State == ipc.ThingLeft && t.Remedy == "" {
		t.Remedy = s.command("", "server", "restart")
	}
	if !slices.ContainsFunc(s.things, func(other thing) bool {
		return other.Kind == "port" && other.Name == t.Name && other.project == t.project
	}) {
		s.add(t)
	}
}

// recordedPorts adds the ports that a service will have again and that nothing
// of it holds.
func (s *search) recordedPorts(p state.SeenProject, svc state.Service) {
	for _, name := range slices.Sorted(maps.Keys(svc.Ports)) {
		port := svc.Ports[name]
		suffix := fmt.Sprintf(":%d", port)
		if slices.ContainsFunc(s.things, func(t thing) bool {
			return t.Kind == "port" && t.project == p.ID && strings.HasSuffix(t.Name, suffix)
		}) {
			continue
		}
		t := thing{project: p.ID, Thing: ipc.Thing{
			Kind: "port", State: ipc.ThingKept, Name: "127.0.0.1" + suffix, Service: svc.Name,
			Detail: "picked for the next start; nobody listens",
			Remedy: s.removeFile(state.Store{Dir: s.places.Dir}.RecordsFile(p.ID)),
		}}
		if s.live.services[p.ID+"/"+svc.Name] {
			t.State, t.Remedy, t.Detail = ipc.ThingUsed, "", "picked; nobody listens yet"
		} else if h, held := sockets.HolderOf(port); held {
			t.PID, t.Detail = h.PID, "picked for the next start; "+h.String()+" has it"
		}
		s.add(t)
	}
}
