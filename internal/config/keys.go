package config

import (
	"errors"
	"maps"
	"net/url"
	"path/filepath"
	"regexp"
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Names and words.
var (
	serviceName  = patternOf(`^[a-z0-9][a-z0-9_-]*$`)
	variableName = patternOf(`^[A-Za-z_][A-Za-z0-9_.-]*$`)
	profileName  = patternOf(`^[A-Za-z0-9][A-Za-z0-9_.-]*$`)
	labelName    = patternOf(`^[^\s=]+$`)
	digits       = patternOf(`^[0-9]{1,4}$`)
	scheme       = patternOf(`^[a-z][a-z0-9+.-]*$`)
	absolute     = patternOf(`^/`)

	serviceTypes = []string{TypeExec, TypeContainer, TypeTask, TypeWorker, TypePostgres}
	engines      = []string{"auto", "docker", "podman", "containerd", "builtin"}
	restarts     = []string{"no", "on-failure", "always"}
	runtimes     = []string{"auto", "container", "process"}
	conditions   = []string{Ready, Started, Completed}
	signals      = []string{"SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGWINCH", "SIGABRT", "SIGKILL"}
)

const maxPort = 65535

// Defaults of a service.
const (
	defaultBackoff     = 500 * time.Millisecond
	defaultMaxRestarts = 10
	defaultStopTimeout = 10 * time.Second
	defaultInterval    = 500 * time.Millisecond
	defaultTimeout     = 2 * time.Second
	defaultRetries     = 3
	defaultStartPeriod = 30 * time.Second
	defaultLogKeep     = 7 * 24 * time.Hour
	defaultLogSize     = 256 << 20
)

// Shapes that more than one key has.
var (
	anyText     = shape{{kind: stringKind}}
	filledText  = shape{{kind: stringKind, format: notBlank}}
	filledRefs  = shape{{kind: stringKind, format: notBlank, refs: true}}
	yesNo       = shape{{kind: booleanKind}}
	portNumber  = shape{{kind: integerKind, low: 1, high: maxPort}}
	paths       = shape{filledText[0], {kind: arrayKind, items: filledText}}
	variable    = shape{{kind: stringKind, refs: true}, {kind: floatKind}, {kind: booleanKind}}
	commandLine = shape{filledRefs[0], {kind: arrayKind, some: true, items: shape{{kind: stringKind, refs: true}}}}
	someTime    = shape{
		{kind: stringKind, format: durationFormat, example: durationExample},
		{kind: floatKind, low: 0, high: float64(maxSeconds)},
	}
	moreTime = shape{
		{kind: stringKind, format: someDurationFormat, example: durationExample},
		{kind: floatKind, low: 0, high: float64(maxSeconds), above: true},
	}
)

// maxSeconds is what a duration can hold.
const maxSeconds = int64(1<<63-1) / int64(time.Second)

func listOf(items shape) shape   { return shape{{kind: arrayKind, items: items}} }
func oneOf(words []string) shape { return shape{{kind: stringKind, oneOf: words}} }
func like(p *pattern, example string) shape {
	return shape{{kind: stringKind, pattern: p, example: example}}
}

// fieldsOf is a table with fixed keys.
func fieldsOf(keys ...field) form { return form{kind: tableKind, keys: keys} }

// tableOf is a table with free keys.
func tableOf(names *pattern, values shape) shape {
	return shape{{kind: tableKind, names: names, values: values}}
}

func notBlank(s string) error {
	if strings.TrimSpace(s) == "" {
		return errors.New("must not be empty")
	}
	return nil
}

func durationFormat(s string) error {
	_, err := Duration(s)
	return err
}

func someDurationFormat(s string) error {
	d, err := Duration(s)
	if err == nil && d == 0 {
		return errors.New("must be more than 0")
	}
	return err
}

func daysFormat(s string) error {
	d, err := days(s)
	if err == nil && d == 0 {
		return errors.New("must be more than 0")
	}
	return err
}

func logSizeFormat(s string) error {
	n, err := size(s)
	if err == nil && n < smallestLogs {
		return errors.New("must be at least 1MB")
	}
	return err
}

func sizeFormat(s string) error {
	_, err := size(s)
	return err
}

func regexpFormat(s string) error {
	_, err := regexp.Compile(s)
	var wrong *syntax.Error
	if errors.As(err, &wrong) {
		return errors.New("not a regular expression: " + wrong.Code.String() + " in " + quote(wrong.Expr))
	}
	return err
}

// httpFormat accepts a path, ":port/path" or a whole URL.
func httpFormat(s string) error {
	if strings.HasPrefix(s, "/") {
		return nil
	}
	if rest, ok := strings.CutPrefix(s, ":"); ok {
		number, _, _ := strings.Cut(rest, "/")
		if n, err := strconv.Atoi(number); err != nil || n < 1 || n > maxPort {
			return errors.New(quote(s) + " has no valid port")
		}
		return nil
	}
	u, err := url.Parse(s)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return errors.New(quote(s) + " is not an address")
	}
	return nil
}

func databaseNameFormat(s string) error {
	if s == "" || len(s) > 63 {
		return errors.New("must have 1 to 63 bytes")
	}
	return nil
}

// projectKeys are the keys of [project].
var projectKeys = []field{
	{"name", "The project's name; the directory's name when it is not written.", like(serviceName, "lower case letters, digits, - and _")},
	{"engine", "Which container engine is used.", oneOf(engines)},
	{"env_file", "Files of variables for every service; later ones win. [] turns .env off.", paths},
	{"inherit_env", "Whether process services inherit the environment of locald up, or which variables of it.", shape{
		{kind: booleanKind},
		{kind: arrayKind, items: like(variableName, "")},
	}},
	{"logs", "How much of what the services wrote is kept.", shape{fieldsOf(logKeys...)}},
}

// logKeys are the keys of logs in [project].
var logKeys = []field{
	{"keep", "For how long: \"7d\", or a duration.", shape{
		{kind: stringKind, format: daysFormat, example: `"7d", "12h", or a number of seconds`},
		{kind: floatKind, low: 0, high: float64(maxSeconds), above: true},
	}},
	{"size", "The most that all services of the project have together.", shape{
		{kind: stringKind, format: logSizeFormat, example: `"256MB", "1GiB", or a number of bytes`},
		{kind: integerKind, low: smallestLogs, high: 1 << 62},
	}},
}

// smallestLogs is the least that logs.size can be: what is written most
// recently always stays.
const smallestLogs = 1 << 20

// healthKeys are the keys of a health table.
var healthKeys = []field{
	{"http", "Ready when a GET of this path, \":port/path\" or URL is answered with 2xx or 3xx.", shape{
		{kind: stringKind, format: httpFormat, example: `"/healthz", ":8080/healthz" or "http://127.0.0.1:8080/healthz"`, refs: true},
	}},
	{"tcp", "Ready when this port, or with true the service's own, is listened on.", shape{
		{kind: integerKind, low: 1, high: maxPort},
		{kind: booleanKind, onlyTrue: true},
	}},
	{"command", "Ready when this command ends with 0.", commandLine},
	{"log", "Ready when a line of the log matches this regular expression.", shape{
		{kind: stringKind, format: regexpFormat, refs: true},
	}},
	{"notify", "Ready when the process says so with sd_notify.", shape{{kind: booleanKind, onlyTrue: true}}},
	{"interval", "The time between two probes.", moreTime},
	{"timeout", "How long one probe may take.", moreTime},
	{"retries", "How many probes in a row must miss before a ready service is unhealthy.", shape{{kind: integerKind, low: 1, high: 1000}}},
	{"start_period", "How long the service may take to be ready.", someTime},
}

// buildKeys are the keys of a build table.
var buildKeys = []field{
	{"context", "The directory whose files the Dockerfile may copy; that of the file when it is not written.", filledText},
	{"dockerfile", "The Dockerfile, relative to the context.", filledText},
	{"target", "The stage that is built; the last one when it is not written.", filledText},
	{"args", "Values of the Dockerfile's ARGs. They are kept in the image for all to see: no place for secrets.", tableOf(variableName, variable)},
}

// probes are the keys of which health has at most one.
var probes = []string{"http", "tcp", "command", "log", "notify"}

var dependency = shape{
	{kind: stringKind},
	fieldsOf(
		field{"service", "The service.", anyText},
		field{"condition", "What it must have come to; a task that is ready has completed.", shape{{kind: stringKind, oneOf: conditions, suggest: otherCondition}}},
	),
}

// serviceKey is one key of a service: what it may be, where it makes sense,
// how it is read and how it is shown.
type serviceKey struct {
	field
	on       []string // the types that have it; nil is all
	image    bool     // only in a container, but for postgres
	fallback any      // the default, where it is the same for all
	restarts bool     // a change needs a restart to take effect

	set func(d *decoder, s *Service, v *value)
	// get is the value as it is shown and compared: a string, number, boolean,
	// list of them, or pairs; nil is none.
	get func(s *Service) any
}

// pair is one key of a table that is shown.
type pair struct {
	name  string
	value any
}

var (
	commanded = []string{TypeExec, TypeContainer, TypeTask, TypeWorker}
	imaged    = []string{TypeContainer, TypeTask, TypeWorker}
	listening = []string{TypeExec, TypeContainer}
	databases = []string{TypePostgres}
)

// serviceKeys is every key of a service.
var serviceKeys = []serviceKey{
	{
		field:    field{"type", "What kind of service it is; exec with a command, container with an image or a build when it is not written.", oneOf(serviceTypes)},
		restarts: true,
		set:      func(*decoder, *Service, *value) {}, // read first, by typeOf
		get:      func(s *Service) any { return s.Type },
	},
	{
		field: field{"command", "What is run: a string goes to sh -c, a list is executed as it is. In a container it replaces the image's CMD.", commandLine},
		on:    commanded, restarts: true,
		set: func(_ *decoder, s *Service, v *value) { s.Command = commandOf(v) },
		get: func(s *Service) any { return s.Command.shown() },
	},
	{
		field: field{"image", "The container image; with postgres it implies a container, with build it is the name of what is built.", filledRefs},
		on:    []string{TypeContainer, TypeTask, TypeWorker, TypePostgres}, restarts: true,
		set: func(_ *decoder, s *Service, v *value) { s.Image = v.text },
		get: func(s *Service) any { return word(s.Image) },
	},
	{
		field: field{"build", "What its image is built from: a directory with a Dockerfile, or a table.", shape{
			filledText[0], fieldsOf(buildKeys...),
		}},
		on: imaged, restarts: true,
		set: (*decoder).build,
		get: func(s *Service) any { return s.Build.shown() },
	},
	{
		field: field{"workdir", "The directory it runs in, relative to the file; of a container an absolute path inside it.", filledText},
		on:    commanded, restarts: true,
		set: (*decoder).workdir,
		get: func(s *Service) any { return word(s.Workdir) },
	},
	{
		field:    field{"depends_on", "The services that must have come to something first.", listOf(dependency)},
		restarts: true,
		set:      (*decoder).dependsOn,
		get:      func(s *Service) any { return shownDependencies(s.DependsOn) },
	},
	{
		field:    field{"env", "Variables of its environment.", tableOf(variableName, variable)},
		restarts: true,
		set:      (*decoder).env,
		get:      func(s *Service) any { return shownVars(s.Env) },
	},
	{
		field:    field{"env_file", "Files of variables; later ones win.", paths},
		restarts: true,
		set:      (*decoder).envFiles,
		get:      func(s *Service) any { return shownEnvFiles(s.EnvFiles) },
	},
	{
		field: field{"port", "The port that it listens on; of postgres the port on 127.0.0.1. A free one that stays the same when it is not written.", portNumber},
		on:    []string{TypeExec, TypeContainer, TypePostgres}, restarts: true,
		set: func(_ *decoder, s *Service, v *value) { s.Port = int(v.number) },
		get: func(s *Service) any { return number(s.Port) },
	},
	{
		field: field{"host_port", "Where a container's port appears on 127.0.0.1; a free one when it is not written.", portNumber},
		on:    []string{TypeContainer}, image: true, restarts: true,
		set: func(_ *decoder, s *Service, v *value) { s.HostPort = int(v.number) },
		get: func(s *Service) any { return number(s.HostPort) },
	},
	{
		field: field{"ports", "More ports, by name; 0 is a free one.", tableOf(serviceName, shape{{kind: integerKind, low: 0, high: maxPort}})},
		on:    listening, restarts: true,
		set: (*decoder).ports,
		get: func(s *Service) any { return shownMap(s.Ports) },
	},
	{
		field: field{"scheme", "The scheme of its URL.", like(scheme, `"http"`)},
		on:    listening,
		set:   func(_ *decoder, s *Service, v *value) { s.Scheme = v.text },
		get:   func(s *Service) any { return word(s.Scheme) },
	},
	{
		field: field{"health", "How it is found out whether the service is ready.", shape{
			{kind: stringKind, oneOf: []string{"none", "notify"}},
			fieldsOf(healthKeys...),
		}},
		on: []string{TypeExec, TypeContainer, TypeWorker, TypePostgres}, restarts: true,
		set: (*decoder).health,
		get: func(s *Service) any { return s.Health.shown() },
	},
	{
		field: field{"restart", "Whether it is started again when it ends; no for a task.", oneOf(restarts)},
		set:   func(_ *decoder, s *Service, v *value) { s.Restart = v.text },
		get:   func(s *Service) any { return word(s.Restart) },
	},
	{
		field:    field{"backoff", "The first delay before a restart; it doubles.", moreTime},
		fallback: "500ms",
		set:      func(_ *decoder, s *Service, v *value) { s.Backoff = durationOf(v) },
		get:      func(s *Service) any { return span(s.Backoff) },
	},
	{
		field:    field{"max_restarts", "How many failures in a row on-failure puts up with.", shape{{kind: integerKind, low: 0, high: 1 << 30}}},
		fallback: defaultMaxRestarts,
		set:      func(_ *decoder, s *Service, v *value) { s.MaxRestarts = int(v.number) },
		get:      func(s *Service) any { return s.MaxRestarts },
	},
	{
		field: field{"stop_signal", "What asks it to end; SIGTERM, or the image's own.", shape{{kind: stringKind, oneOf: signals, suggest: withSIG}}},
		on:    commanded, restarts: true,
		set: func(_ *decoder, s *Service, v *value) { s.StopSignal = v.text },
		get: func(s *Service) any { return word(s.StopSignal) },
	},
	{
		field:    field{"stop_timeout", "How long it has to end before it is killed.", someTime},
		fallback: "10s",
		set:      func(_ *decoder, s *Service, v *value) { s.StopTimeout = durationOf(v) },
		get:      func(s *Service) any { return span(s.StopTimeout) },
	},
	{
		field: field{"profiles", "It starts only when one of them is active, it is named, or something that starts depends on it.", listOf(like(profileName, ""))},
		set:   func(_ *decoder, s *Service, v *value) { s.Profiles = texts(v) },
		get:   func(s *Service) any { return words(s.Profiles) },
	},
	{
		field: field{"entrypoint", "It replaces the image's ENTRYPOINT.", listOf(anyText)},
		on:    imaged, image: true, restarts: true,
		set: func(_ *decoder, s *Service, v *value) { s.Entrypoint = texts(v) },
		get: func(s *Service) any {
			if s.Entrypoint == nil {
				return nil
			}
			return s.Entrypoint
		},
	},
	{
		field: field{"user", "The user in the container; of postgres the database's.", filledText},
		on:    []string{TypeContainer, TypeTask, TypeWorker, TypePostgres}, image: true, restarts: true,
		set: (*decoder).user,
		get: func(s *Service) any {
			if s.Postgres != nil {
				return word(s.Postgres.User)
			}
			return word(s.User)
		},
	},
	{
		field: field{"network", "host is the host's own network.", oneOf([]string{"host"})},
		on:    imaged, image: true, restarts: true,
		set: func(_ *decoder, s *Service, v *value) { s.Network = v.text },
		get: func(s *Service) any { return word(s.Network) },
	},
	{
		field: field{"read_only", "The container cannot write to its image.", yesNo},
		on:    imaged, image: true, restarts: true,
		set: func(_ *decoder, s *Service, v *value) { s.ReadOnly = v.truth },
		get: func(s *Service) any {
			if !s.ReadOnly {
				return nil
			}
			return true
		},
	},
	{
		field: field{"tmpfs", "Paths in the container that are kept in memory.", listOf(like(absolute, `"/tmp"`))},
		on:    imaged, image: true, restarts: true,
		set: func(_ *decoder, s *Service, v *value) { s.Tmpfs = texts(v) },
		get: func(s *Service) any { return words(s.Tmpfs) },
	},
	{
		field: field{"memory", "The most memory it may use.", shape{
			{kind: stringKind, format: sizeFormat, example: `"512m", "1GiB", or a number of bytes`},
			{kind: integerKind, low: 1, high: 1 << 62},
		}},
		on: imaged, image: true, restarts: true,
		set: func(_ *decoder, s *Service, v *value) { s.Memory = sizeOf(v) },
		get: func(s *Service) any {
			if s.Memory == 0 {
				return nil
			}
			return s.Memory
		},
	},
	{
		field: field{"cpus", "How many processors it may use.", shape{{kind: floatKind, low: 0, high: 1 << 20, above: true}}},
		on:    imaged, image: true, restarts: true,
		set: func(_ *decoder, s *Service, v *value) { s.CPUs = v.float },
		get: func(s *Service) any {
			if s.CPUs == 0 {
				return nil
			}
			return s.CPUs
		},
	},
	{
		field: field{"labels", "Labels of the container.", tableOf(labelName, shape{{kind: stringKind}, {kind: floatKind}, {kind: booleanKind}})},
		on:    imaged, image: true, restarts: true,
		set: (*decoder).labels,
		get: func(s *Service) any { return shownMap(s.Labels) },
	},
	{
		field: field{"volumes", `Volumes ("name:/path") and directories of the host ("./dir:/path:ro").`, listOf(filledRefs)},
		on:    imaged, image: true, restarts: true,
		set: (*decoder).volumes,
		get: func(s *Service) any { return shownVolumes(s.Volumes) },
	},
	{
		field: field{"allow", "What a container may be given although it is as good as the whole machine: docker-socket.", listOf(oneOf([]string{DockerSocket}))},
		on:    imaged, image: true, restarts: true,
		set: func(_ *decoder, s *Service, v *value) { s.Allow = texts(v) },
		get: func(s *Service) any { return words(s.Allow) },
	},
	{
		field: field{"version", "The major version of Postgres.", like(digits, `"16"`)},
		on:    databases, restarts: true,
		set: func(_ *decoder, s *Service, v *value) { s.Postgres.Version = v.text },
		get: ofPostgres(func(p *Postgres) any { return word(p.Version) }),
	},
	{
		field: field{"database", "The database's name; the project's when it is not written.", shape{{kind: stringKind, format: databaseNameFormat}}},
		on:    databases, restarts: true,
		set: func(_ *decoder, s *Service, v *value) { s.Postgres.Database = v.text },
		get: ofPostgres(func(p *Postgres) any { return word(p.Database) }),
	},
	{
		field: field{"password", "The password; generated once when it is not written.", filledText},
		on:    databases, restarts: true,
		set: func(_ *decoder, s *Service, v *value) { s.Postgres.Password = v.text },
		get: ofPostgres(func(p *Postgres) any { return word(p.Password) }),
	},
	{
		field: field{"init", "SQL files that are run once, when the data is created.", listOf(filledText)},
		on:    databases,
		set:   (*decoder).init,
		get:   ofPostgres(func(p *Postgres) any { return words(p.Init) }),
	},
	{
		field: field{"runtime", "Whether Postgres runs as a process or in a container.", oneOf(runtimes)},
		on:    databases, restarts: true,
		set: func(_ *decoder, s *Service, v *value) { s.Postgres.Runtime = v.text },
		get: ofPostgres(func(p *Postgres) any { return word(p.Runtime) }),
	},
}

// keyOf is the key of that name, or nil.
func keyOf(name string) *serviceKey {
	for i := range serviceKeys {
		if serviceKeys[i].name == name {
			return &serviceKeys[i]
		}
	}
	return nil
}

func ofPostgres(get func(*Postgres) any) func(*Service) any {
	return func(s *Service) any {
		if s.Postgres == nil {
			return nil
		}
		return get(s.Postgres)
	}
}

// has reports whether services of that type have the key.
func (k *serviceKey) has(serviceType string) bool {
	return k.on == nil || slices.Contains(k.on, serviceType)
}

// otherSpellings are those of other tools.
var otherSpellings = map[string]string{
	"environment":       "env",
	"working_dir":       "workdir",
	"dir":               "workdir",
	"cwd":               "workdir",
	"healthcheck":       "health",
	"run":               "command",
	"cmd":               "command",
	"stop_grace_period": "stop_timeout",
	"depends":           "depends_on",
}

// meant is the key that a name which is no key was meant to be: the spelling of
// another tool, or something close to that or to a key. foreign reports the
// former two.
func meant(name string) (key string, foreign bool) {
	if other := otherSpellings[name]; other != "" {
		return other, true
	}
	var own []string
	for _, k := range serviceKeys {
		own = append(own, k.name)
	}
	if near := Nearest(name, own); near != "" {
		return near, false
	}
	other := otherSpellings[Nearest(name, slices.Sorted(maps.Keys(otherSpellings)))]
	return other, other != ""
}

// otherCondition is what a condition of Compose is called here.
func otherCondition(s string) string {
	switch s {
	case "service_healthy", "healthy":
		return Ready
	case "service_started":
		return Started
	case "service_completed_successfully":
		return Completed
	}
	return ""
}

func withSIG(s string) string { return "SIG" + strings.TrimPrefix(strings.ToUpper(s), "SIG") }

// commandOf reads a command of the right shape.
func commandOf(v *value) Command {
	if v.kind == stringKind {
		return Command{Shell: v.text}
	}
	return Command{Argv: texts(v)}
}

// texts are the strings of a list; of a single string the one. It is never nil.
func texts(v *value) []string {
	if v.kind == stringKind {
		return []string{v.text}
	}
	list := make([]string, 0, len(v.items))
	for _, item := range v.items {
		if !item.bad {
			list = append(list, item.text)
		}
	}
	return list
}

// plain is a string, number or boolean as a variable has it.
func plain(v *value) string {
	switch v.kind {
	case integerKind:
		return strconv.FormatInt(v.number, 10)
	case floatKind:
		return strings.ReplaceAll(v.text, "_", "")
	}
	return v.text
}

func durationOf(v *value) time.Duration {
	if v.kind == stringKind {
		d, _ := Duration(v.text) // its shape has been checked
		return d
	}
	d, _ := fromSeconds(v.float)
	return d
}

func sizeOf(v *value) int64 {
	if v.kind == integerKind {
		return v.number
	}
	n, _ := size(v.text) // its shape has been checked
	return n
}

// inside makes path absolute, relative to dir.
func inside(dir, path string) string {
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(dir, path)
}
