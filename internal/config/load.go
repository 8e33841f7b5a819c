package config

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Options say what to load.
type Options struct {
	Dir  string // where to begin
	File string // a file instead of the one to look for, relative to Dir

	// Read replaces the disk: with it nothing else is touched, no links are
	// resolved, and that init files exist is taken for granted. A file that is
	// not there is an fs.ErrNotExist. Recorded makes one of a Project's Sources.
	Read func(path string) ([]byte, error)
}

// Load reads and checks a project. What is wrong with the configuration is an
// *Error with all problems; there are no others.
func Load(o Options) (*Project, error) {
	dir, file, err := find(o)
	if err != nil {
		return nil, err
	}
	d := &decoder{
		problems: &problems{},
		files:    &files{dir: dir, read: o.Read},
		project:  &Project{Dir: dir, File: file, Engine: "auto", Inherit: Inherit{All: true}, Logs: Logs{defaultLogKeep, defaultLogSize}, At: map[string]Pos{}},
		onDisk:   o.Read == nil,

		untyped:    map[string]bool{},
		references: map[string][]located{},
		variables:  map[string]EnvFile{},
	}
	root := d.tree(file)
	if root != nil {
		d.decode(root)
	}
	order := make([]string, len(d.files.sources))
	for i, s := range d.files.sources {
		order[i] = d.files.name(s.Path)
	}
	if err := d.err(order); err != nil {
		return nil, err
	}
	d.project.Sources = d.files.sources
	return d.project, nil
}

// find is Find, or with Read what it would find there.
func find(o Options) (dir, file string, err error) {
	if o.Read == nil {
		return Find(o.Dir, o.File)
	}
	if o.File != "" {
		path := inside(o.Dir, o.File)
		return filepath.Dir(path), path, nil
	}
	file, err = look(filepath.Clean(o.Dir), func(path string) error {
		_, err := o.Read(path)
		return err
	})
	return filepath.Dir(file), file, err
}

// decoder makes a Project of the trees of its files.
type decoder struct {
	*problems
	files   *files
	project *Project
	onDisk  bool

	table      *value // of the service that is being decoded
	known      []string
	untyped    map[string]bool      // services whose type nobody knows
	references map[string][]located // by service
	variables  map[string]EnvFile   // files that have been read, by path
}

// located is a string that may have references in it.
type located struct {
	key  string
	text string
	pos  Pos
}

// report adds the problems of err, an *Error.
func (d *decoder) report(err error) {
	var all *Error
	if errors.As(err, &all) {
		d.found = append(d.found, all.Problems...)
		return
	}
	d.add(Pos{}, "", "%v", err)
}

// tree reads file and what is to be merged over it; nil when one of them
// cannot be read at all.
func (d *decoder) tree(file string) *value {
	content, err := d.files.text(file)
	if err != nil {
		d.report(err)
		return nil
	}
	if isProcfile(file) {
		return parseProcfile(d.files.name(file), content, d.problems)
	}
	root := parseTOML(d.files.name(file), content, d.problems)
	if root != nil {
		d.checkRoot(root)
	}
	over, readable := d.localTree(localFile(file))
	if root == nil || !readable {
		return nil
	}
	if over != nil {
		d.checkRoot(over)
		root.merge(over)
	}
	return root
}

// localTree is nil when there is no such file; ok is false when there is one
// that cannot be read.
func (d *decoder) localTree(file string) (tree *value, ok bool) {
	if _, err := d.files.get(file); errors.Is(err, fs.ErrNotExist) {
		return nil, true
	}
	content, err := d.files.text(file)
	if err != nil {
		d.report(err)
		return nil, false
	}
	tree = parseTOML(d.files.name(file), content, d.problems)
	return tree, tree != nil
}

// checkRoot checks the shape of everything in one file.
func (d *decoder) checkRoot(root *value) {
	for _, e := range root.entries {
		switch e.name {
		case "project":
			c := checker{problems: d.problems}
			c.check("project", e.value, shape{fieldsOf(projectKeys...)})
		case "services":
			d.checkServices(e.value)
		default:
			e.value.bad = true
			d.unknownTable(e)
		}
	}
}

func (d *decoder) unknownTable(e entry) {
	hint := didYouMean(e.name, []string{"project", "services"}, "")
	name := "NAME"
	if len(e.value.entries) > 0 {
		name = e.value.entries[0].name
	}
	switch {
	case slices.Contains([]string{"processes", "process", "daemons", "daemon", "service"}, e.name) && e.value.kind == tableKind:
		hint = "[services." + name + "]"
	case slices.ContainsFunc(projectKeys, func(k field) bool { return k.name == e.name }):
		hint = "put it below [project]"
	case keyOf(e.name) != nil:
		hint = "put it below [services.NAME]"
	}
	what := "key"
	if e.value.kind == tableKind {
		what = "table"
	}
	d.add(e.pos, hint, "unknown %s %s", what, show(e.name))
}

func (d *decoder) checkServices(v *value) {
	c := checker{problems: d.problems}
	if v.kind != tableKind {
		c.blame(v, "[services.NAME]", "services must be a table, not %s", describe(v))
		return
	}
	for _, e := range v.entries {
		switch {
		case !serviceName.MatchString(e.name):
			e.value.bad = true
			hint := "lower case letters, digits, - and _"
			if fit := fitName(e.name); fit != "" {
				hint = "did you mean " + fit + "?"
			}
			d.addTo(e.name, e.pos, hint, "%s is not a valid name of a service", quote(e.name))
		case e.value.kind != tableKind:
			c.service = e.name
			c.blame(e.value, "[services."+e.name+"]", "services.%s must be a table, not %s", e.name, describe(e.value))
		default:
			d.checkService(e.name, e.value)
		}
	}
}

func (d *decoder) checkService(name string, v *value) {
	c := checker{problems: d.problems, service: name}
	for _, e := range v.entries {
		path := "services." + name + "." + show(e.name)
		if k := keyOf(e.name); k != nil {
			c.check(path, e.value, k.shape)
			continue
		}
		e.value.bad = true
		switch key, foreign := meant(e.name); {
		case foreign:
			d.addTo(name, e.pos, "write "+key, "%s: unknown key %s", "services."+name, show(e.name))
		default:
			c.unknownKey("services."+name, e, keyFields)
		}
	}
}

// decode fills in the project from a tree whose shapes have been checked.
func (d *decoder) decode(root *value) {
	d.decodeProject(root.get("project"))
	services := root.get("services")
	if services == nil || len(services.entries) == 0 {
		if len(d.found) == 0 {
			d.noServices()
		}
		return
	}
	for _, e := range services.entries {
		d.known = append(d.known, e.name)
		if !e.value.bad {
			d.project.Services = append(d.project.Services, d.service(e))
		}
	}
	d.checkTogether()
}

func (d *decoder) noServices() {
	file := d.files.name(d.project.File)
	hint := `[services.web] and below it command = "npm start"`
	if isProcfile(d.project.File) {
		hint = "web: npm start"
	}
	d.add(Pos{File: file, Line: 1, Column: 1}, hint, "there are no services in %s", file)
}

func (d *decoder) decodeProject(table *value) {
	p := d.project
	p.Name = fitName(filepath.Base(p.Dir))
	if p.Name == "" {
		p.Name = "project"
	}
	if table != nil {
		for _, e := range table.entries {
			p.At[e.name] = e.pos
		}
	}
	if v := table.get("name"); v != nil {
		p.Name = v.text
	}
	if v := table.get("engine"); v != nil {
		p.Engine = v.text
	}
	if v := table.get("inherit_env"); v != nil {
		p.Inherit = Inherit{All: v.kind == booleanKind && v.truth}
		if v.kind == arrayKind {
			p.Inherit.Names = texts(v)
		}
	}
	d.decodeLogs(table.get("logs"))
	if table.lookup("env_file") != nil {
		if v := table.get("env_file"); v != nil {
			p.EnvFiles = d.readEnvFiles("", "project.env_file", v)
		}
		return
	}
	path := filepath.Join(p.Dir, ".env")
	if _, err := d.files.get(path); !errors.Is(err, fs.ErrNotExist) {
		p.EnvFiles = d.readEnvFile("", path, func(err error) { d.report(err) })
	}
}

func (d *decoder) decodeLogs(table *value) {
	p := d.project
	if table != nil {
		for _, e := range table.entries {
			p.At["logs."+e.name] = e.pos
		}
	}
	if v := table.get("keep"); v != nil {
		p.Logs.Keep = durationOf(v)
		if d, err := days(v.text); err == nil && v.kind == stringKind {
			p.Logs.Keep = d
		}
	}
	if v := table.get("size"); v != nil {
		p.Logs.Size = sizeOf(v)
	}
}

// readEnvFiles reads the files that v, a string or a list of them, names.
func (d *decoder) readEnvFiles(service, key string, v *value) []EnvFile {
	items := v.items
	if v.kind == stringKind {
		items = []*value{v}
	}
	files := make([]EnvFile, 0, len(items))
	for _, item := range items {
		if item.bad {
			continue
		}
		path := inside(d.project.Dir, item.text)
		files = append(files, d.readEnvFile(service, path, func(err error) {
			var all *Error
			if errors.As(err, &all) && all.Problems[0].Pos.Line == 0 {
				// The file itself, not what is in it: the line that names it is to blame.
				d.addTo(service, item.pos, all.Problems[0].Hint, "%s: %s", key, all.Problems[0].Message)
				return
			}
			d.report(err)
		})...)
	}
	return files
}

func (d *decoder) readEnvFile(service, path string, blame func(error)) []EnvFile {
	if known, ok := d.variables[path]; ok {
		return []EnvFile{known}
	}
	if err := d.files.leaves(path); err != nil {
		blame(err)
		return nil
	}
	content, err := d.files.text(path)
	if err != nil {
		blame(err)
		return nil
	}
	name := d.files.name(path)
	found := &problems{}
	file := EnvFile{Path: name, Vars: parseEnvFile(name, content, found)}
	for _, p := range found.found {
		p.Service = service
		d.found = append(d.found, p)
	}
	d.variables[path] = file
	return []EnvFile{file}
}

// service decodes one service.
func (d *decoder) service(e entry) *Service {
	s := &Service{Name: e.name, Pos: e.pos, At: map[string]Pos{}}
	d.table = e.value
	s.Type = d.typeOf(s)
	d.defaults(s)
	for _, e := range d.table.entries {
		k := keyOf(e.name)
		s.At[e.name] = e.pos
		if k == nil || e.value.bad || !d.belongs(s, k, e) {
			continue
		}
		for _, below := range e.value.entries {
			s.At[e.name+"."+below.name] = below.pos
		}
		k.set(d, s, e.value)
		if slices.Contains(referring, e.name) {
			d.collect(s.Name, "services."+s.Name+"."+e.name, e.value)
		}
	}
	d.finish(s)
	return s
}

// referring are the keys in which references are resolved.
var referring = []string{"command", "image", "build", "env", "volumes", "health"}

// collect keeps the strings of v that have references.
func (d *decoder) collect(service, key string, v *value) {
	switch {
	case v.bad:
	case v.kind == stringKind && strings.Contains(v.text, "${"):
		d.references[service] = append(d.references[service], located{key, v.text, v.pos})
	}
	for _, item := range v.items {
		d.collect(service, key, item)
	}
	for _, e := range v.entries {
		d.collect(service, key+"."+e.name, e.value)
	}
}

// has reports whether the key is written, right or wrong.
func (d *decoder) has(key string) bool { return d.table.lookup(key) != nil }

// inContainer reports whether the service that is being decoded has an image.
func (d *decoder) inContainer() bool { return d.has("image") || d.has("build") }

// typeOf is the written type, or the one that the other keys imply.
func (d *decoder) typeOf(s *Service) string {
	if v := d.table.get("type"); v != nil {
		return v.text
	}
	if !d.has("type") && d.inContainer() {
		return TypeContainer
	}
	if d.has("type") {
		d.untyped[s.Name] = true
		return TypeExec
	}
	if d.hasCommand() {
		return TypeExec
	}
	hint := `command = "…" or image = "…"`
	d.untyped[s.Name] = true
	for _, k := range serviceKeys {
		if d.has(k.name) && len(k.on) == 1 && k.on[0] == TypePostgres {
			hint = `type = "postgres"`
		}
	}
	d.addTo(s.Name, s.Pos, hint, "services.%s has neither a command nor an image", s.Name)
	return TypeExec
}

// hasCommand reports whether there is a command, or something that was meant to
// be one.
func (d *decoder) hasCommand() bool {
	return slices.ContainsFunc(d.table.entries, func(e entry) bool {
		if keyOf(e.name) != nil {
			return e.name == "command"
		}
		key, _ := meant(e.name)
		return key == "command"
	})
}

func (d *decoder) defaults(s *Service) {
	s.Restart, s.Backoff, s.MaxRestarts, s.StopTimeout = "on-failure", defaultBackoff, defaultMaxRestarts, defaultStopTimeout
	s.Health = Health{Interval: defaultInterval, Timeout: defaultTimeout, Retries: defaultRetries, StartPeriod: defaultStartPeriod}
	switch s.Type {
	case TypeTask:
		s.Restart = "no"
	case TypePostgres:
		name := databaseName(d.project.Name)
		s.Postgres = &Postgres{Database: name, User: name, Runtime: "auto"}
	}
	if s.Type != TypePostgres && !d.inContainer() && s.Type != TypeContainer {
		s.Workdir = d.project.Dir
	}
}

// databaseName is a project's name as a name of databases and users.
func databaseName(project string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '_'
	}, project)
}

// article is a type with its article.
func article(serviceType string) string {
	switch serviceType {
	case TypeExec:
		return "an exec"
	case TypePostgres:
		return "a postgres service"
	}
	return "a " + serviceType
}

// belongs reports a key that makes no sense for the type of s.
func (d *decoder) belongs(s *Service, k *serviceKey, e entry) bool {
	if d.untyped[s.Name] {
		return k.has(s.Type) // there is a problem already; this is not another one
	}
	path := "services." + s.Name + "." + k.name
	switch {
	case s.Type == TypeTask && k.name == "health":
		d.addTo(s.Name, e.pos, "", "%s: a task is ready when it has ended with 0", path)
	case !k.has(s.Type) && (k.name == "port" || k.name == "ports" || k.name == "host_port") && (s.Type == TypeTask || s.Type == TypeWorker):
		hint := `type = "exec"`
		if d.inContainer() {
			hint = `type = "container"`
		}
		d.addTo(s.Name, e.pos, hint, "%s: a %s has no port", path, s.Type)
	case s.Type == TypeExec && (k.name == "image" || k.name == "build"):
		d.addTo(s.Name, e.pos, `type = "container"`, "%s: an exec has no %s", path, k.name)
	case !k.has(s.Type) && len(k.on) == 1 && k.on[0] == TypePostgres:
		d.addTo(s.Name, e.pos, `type = "postgres"`, "%s is only for postgres services", path)
	case !k.has(s.Type):
		hint := ""
		if k.image && s.Type == TypeExec {
			hint = `image = "…"`
		}
		d.addTo(s.Name, e.pos, hint, "%s: %s has no %s", path, article(s.Type), k.name)
	case k.image && s.Type != TypePostgres && !d.inContainer():
		d.addTo(s.Name, e.pos, `image = "…"`, "%s is only for containers, and %s has no image", path, s.Name)
	default:
		return true
	}
	return false
}

// finish checks what the keys of one service come to together.
func (d *decoder) finish(s *Service) {
	path := "services." + s.Name
	written := d.table.get("type")
	switch {
	case written == nil:
	case s.Type == TypeContainer && !d.inContainer():
		d.addTo(s.Name, s.Pos, `image = "…"`, "%s is a container and has no image", path)
	case s.Type == TypeExec && !d.hasCommand() && !d.inContainer():
		d.addTo(s.Name, s.Pos, `command = "…"`, "%s has no command", path)
	case (s.Type == TypeTask || s.Type == TypeWorker) && !d.hasCommand() && !d.inContainer():
		d.addTo(s.Name, s.Pos, `command = "…" or image = "…"`, "%s has neither a command nor an image", path)
	}
	if len(s.Command.Argv) > 0 && strings.TrimSpace(s.Command.Argv[0]) == "" {
		d.addTo(s.Name, s.At["command"], "", "%s.command names no program", path)
	}
	if s.Type == TypeTask && s.Restart == "always" {
		d.addTo(s.Name, s.At["restart"], `type = "worker"`, "%s.restart: a task ends, always would run it for ever", path)
	}
	if p := s.Postgres; p != nil && s.Image != "" {
		if p.Runtime == "process" {
			d.addTo(s.Name, s.At["runtime"], `runtime = "container"`, "%s.runtime: an image cannot run as a process", path)
		}
		p.Runtime = "container"
	}
	if s.Type == TypeContainer && !d.has("port") && IsPostgresImage(s.Image) {
		s.Port = postgresPort // every such image listens there, and its dependents need it
	}
	d.finishPorts(s, path)
	d.finishHealth(s, path)
}

func (d *decoder) finishPorts(s *Service, path string) {
	if s.HostPort != 0 && s.Port == 0 && !d.has("port") {
		d.addTo(s.Name, s.At["host_port"], "port = …", "%s.host_port: there is no port to publish", path)
	}
	if s.HostPort != 0 && s.Network == "host" {
		d.addTo(s.Name, s.At["host_port"], "", "%s.host_port: on the host's network nothing is published, port is where it appears", path)
	}
	if s.Type != TypeContainer {
		return
	}
	for name, number := range s.Ports {
		if number == 0 {
			d.addTo(s.Name, s.At["ports."+name], "", "%s.ports.%s: what a container listens on has to be written, 0 is for processes", path, name)
		}
	}
}

func (d *decoder) finishHealth(s *Service, path string) {
	h := s.Health
	own := h.TCP == -1 || strings.HasPrefix(h.HTTP, "/")
	if own && !s.HasPort() && !d.has("port") && !d.untyped[s.Name] {
		hint := "port = …"
		if s.Type == TypeWorker || s.Type == TypeTask {
			hint = "health = { http = \":8080/healthz\" }" // it cannot be given one
		}
		d.addTo(s.Name, s.At["health"], hint, "%s.health: %s has no port", path, s.Name)
	}
	if s.Contained() && s.Network != "host" {
		if n := portOfHealth(h); n > 0 && n != s.Port && !slices.Contains(slices.Collect(maps.Values(s.Ports)), n) {
			d.addTo(s.Name, s.At["health"], fmt.Sprintf("ports = { health = %d }", n), "%s.health: port %d of %s is not published", path, n, s.Name)
		}
	}
	if h.Notify && s.Contained() {
		d.addTo(s.Name, s.At["health"], "", "%s.health: notify is for processes, and %s is a container", path, s.Name)
	}
}

// portOfHealth is the port that a health check names by its number; 0 when it
// names none.
func portOfHealth(h Health) int {
	if h.TCP > 0 {
		return h.TCP
	}
	rest, found := strings.CutPrefix(h.HTTP, ":")
	if !found {
		return 0
	}
	number, _, _ := strings.Cut(rest, "/")
	n, err := strconv.Atoi(number)
	if err != nil {
		return 0
	}
	return n
}
