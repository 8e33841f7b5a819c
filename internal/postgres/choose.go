package postgres

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/locald/locald/runtime"
)

// defaultMajor is the version of a container when nothing asks for another.
const defaultMajor = "17"

// DataFound says what an earlier run left.
type DataFound struct {
	Dir         string // the service's directory, for messages
	NativeMajor string // what Major says of it: "15", or "" when there is no native data
	Volume      bool   // the service's volume exists
	VolumeMajor string // the version that made it, "" when that is unknown
}

// Choice is how a managed Postgres is run.
type Choice struct {
	Native  bool
	Install Install // when Native
	Image   string  // when not
	Why     string  // one sentence for people, without a full stop
}

// Choose decides how a managed Postgres is run: where its data already is, else
// with native programs of the version asked for, else as a container, unless
// the settings name one of the two. installs is what Installs found; engine
// says whether a container engine answers. It reads nothing and starts nothing.
//
// Its error is a *runtime.Fault that says what to install or to type.
func Choose(s Settings, data DataFound, installs []Install, engine bool) (Choice, error) {
	c := chooser{s, data, installs, engine}
	if err := c.contradiction(); err != nil {
		return Choice{}, err
	}
	switch {
	case s.Image != "":
		return c.container("image is set")
	case s.Runtime == "container":
		return c.container(`runtime = "container" is set`)
	case s.Runtime == "process":
		return c.native(`runtime = "process" is set`)
	case data.NativeMajor != "":
		return c.native("its data is in " + data.Dir)
	case data.Volume:
		return c.container("its data is in a container volume")
	}
	if _, ok := c.install(major(s.Version)); ok {
		return c.native("its programs are installed")
	}
	if engine {
		return c.container("no native " + product(major(s.Version)) + " is installed")
	}
	return Choice{}, c.missing()
}

type chooser struct {
	s        Settings
	data     DataFound
	installs []Install
	engine   bool
}

// contradiction is the error for settings that no decision can satisfy.
func (c chooser) contradiction() error {
	want, in := major(c.s.Version), ImageMajor(c.s.Image)
	f := &runtime.Fault{Code: "config_invalid"}
	switch _, err := strconv.ParseUint(want, 10, 16); {
	case want != "" && err != nil:
		f.Hint, f.Err = fmt.Sprintf("version = %q", defaultMajor), fmt.Errorf("version %q is not a version of Postgres", c.s.Version)
	case c.s.Image != "" && c.s.Runtime == "process":
		f.Hint, f.Err = "delete image or runtime", errors.New(`runtime = "process" and image exclude each other`)
	case want != "" && in != "" && want != in:
		f.Hint, f.Err = fmt.Sprintf("version = %q", in), fmt.Errorf("version = %q and image = %q exclude each other", c.s.Version, c.s.Image)
	default:
		return nil
	}
	return f
}

// install is the newest one of the version, or of any when version is "".
func (c chooser) install(version string) (Install, bool) {
	i := slices.IndexFunc(c.installs, func(i Install) bool { return version == "" || i.Version == version })
	if i < 0 {
		return Install{}, false
	}
	return c.installs[i], true
}

func (c chooser) native(why string) (Choice, error) {
	want := major(c.s.Version)
	if have := c.data.NativeMajor; have != "" {
		if want != "" && want != have {
			return Choice{}, c.mismatch("data directory "+c.data.Dir, have)
		}
		want = have
	}
	if install, ok := c.install(want); ok {
		return Choice{Native: true, Install: install, Why: fmt.Sprintf("Postgres %s of %s, because %s", install.Version, install.Bin, why)}, nil
	}
	if c.data.NativeMajor == "" {
		return Choice{}, c.missing()
	}
	only := "which is not installed"
	if len(c.installs) > 0 {
		only = "and only " + c.installed() + " is installed"
	}
	return Choice{}, &runtime.Fault{
		Code: "command_missing",
		Hint: packages(want) + ", or to start afresh without that data: locald down -v " + c.s.Service,
		Err:  fmt.Errorf("data directory %s was made by Postgres %s, %s", c.data.Dir, want, only),
	}
}

func (c chooser) container(why string) (Choice, error) {
	want, image := major(c.s.Version), c.s.Image
	if in := ImageMajor(image); in != "" {
		want = in
	}
	if have := c.data.VolumeMajor; c.data.Volume && have != "" {
		if want != "" && want != have {
			return Choice{}, c.mismatch("its container volume", have)
		}
		want = have
	}
	if !c.engine {
		return Choice{}, &runtime.Fault{
			Code: "engine_unavailable",
			Hint: "locald doctor",
			Err:  fmt.Errorf("%s, and no container engine answers", why),
		}
	}
	if image == "" {
		if want == "" {
			want = defaultMajor
		}
		image = "postgres:" + want
	}
	return Choice{Image: image, Why: fmt.Sprintf("a container of %s, because %s", image, why)}, nil
}

// mismatch is the error for data of another version than the settings say.
func (c chooser) mismatch(where, have string) error {
	key, asked := "version", c.s.Version
	fix := fmt.Sprintf("version = %q", have)
	if c.s.Image != "" {
		key, asked = "image", c.s.Image
		fix = "an image of Postgres " + have
	}
	return mismatch(where, have, fmt.Sprintf("%s = %q is asked for", key, asked), fix, c.s.Service)
}

func mismatch(where, have, why, fix, service string) error {
	return &runtime.Fault{
		Code: "config_invalid",
		Hint: fix + ", or to start afresh without that data: locald down -v " + service,
		Err:  fmt.Errorf("%s was made by Postgres %s, and %s", where, have, why),
	}
}

// missing is the error when there are no programs for data that is still to be
// made.
func (c chooser) missing() error {
	want := major(c.s.Version)
	message, hint := product(want)+" is not installed", packages(want)
	if len(c.installs) > 0 {
		message += ", only " + c.installed()
	}
	if c.s.Runtime != "process" {
		message += ", and no container engine answers"
		hint += ", or install Docker"
	}
	return &runtime.Fault{Code: "command_missing", Hint: hint, Err: errors.New(message)}
}

// packages is what to type to get the programs.
func packages(version string) string {
	if version == "" {
		return "apt-get install postgresql (macOS: brew install postgresql@" + defaultMajor + ")"
	}
	return fmt.Sprintf("apt-get install postgresql-%s (macOS: brew install postgresql@%[1]s)", version)
}

func (c chooser) installed() string {
	var versions []string
	for _, i := range c.installs {
		versions = append(versions, i.Version)
	}
	return strings.Join(slices.Compact(versions), ", ")
}

func product(version string) string {
	if version == "" {
		return "Postgres"
	}
	return "Postgres " + version
}
