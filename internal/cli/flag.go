package cli

import (
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/locald/locald/internal/config"
	"github.com/locald/locald/internal/state"
)

// injected are the variables that services find in their environment. They say
// something about a service, so they are not taken for flags by a locald that
// runs inside of one.
var injected = []string{"LOCALD_RUN", "LOCALD_SERVICE", "LOCALD_PROJECT", "LOCALD_OWNER"}

// prepare fills in what the environment says of flags that were not given.
func (a *app) prepare(cmd *cobra.Command, _ []string) error {
	if err := state.Refused(a.getenv); err != nil {
		return err
	}
	if cmd.Flags().Changed("sandbox") && a.global.sandbox == "" {
		return usage(cmd, "--sandbox: the name is empty, and without one it would be your own daemon")
	}
	if profiles := a.getenv("LOCALD_PROFILES"); profiles != "" && !cmd.Flags().Changed("profile") {
		a.global.profiles = strings.FieldsFunc(profiles, func(r rune) bool { return r == ',' || r == ' ' })
	}
	var wrong error
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		name := "LOCALD_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_"))
		value := a.getenv(name)
		if f.Changed || f.Hidden || f.Name == "help" || value == "" || slices.Contains(injected, name) {
			return
		}
		if err := cmd.Flags().Set(f.Name, value); err != nil && wrong == nil {
			wrong = usage(cmd, "%s=%s: %s", name, value, plainly(err))
		}
		f.Changed = false // what is typed wins, also over what it cannot be given with
	})
	if wrong != nil {
		return wrong
	}
	if !slices.Contains([]string{"auto", "always", "never"}, a.global.color) {
		return usage(cmd, "--color %s: it is auto, always or never", a.global.color)
	}
	return nil
}

var parsing = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`strconv\.\w+: parsing "[^"]*": `)
})

// plainly is an error without the names of the functions that it comes from.
func plainly(err error) string { return parsing().ReplaceAllString(err.Error(), "") }

// exclusive is an error when more than one of the flags was given.
func exclusive(cmd *cobra.Command, names ...string) error {
	var given []string
	for _, name := range names {
		if cmd.Flags().Changed(name) {
			given = append(given, "--"+name)
		}
	}
	if len(given) > 1 {
		return usage(cmd, "%s cannot be given together", strings.Join(given, " and "))
	}
	return nil
}

// duration is a flag as config.Duration reads it: "10s", "5m", or a bare
// number of seconds. As text it is empty when it was not given.
type duration struct{ text string }

func (d *duration) Set(s string) error {
	v, err := config.Duration(s)
	if err != nil {
		return err
	}
	d.text = v.String()
	return nil
}

func (d *duration) String() string { return d.text }
func (d *duration) Type() string   { return "duration" }

// choice is a flag that has one of a few values.
type choice struct {
	value   string
	allowed []string
}

func (c *choice) Set(s string) error {
	if !slices.Contains(c.allowed, s) {
		return &unlisted{c.allowed}
	}
	c.value = s
	return nil
}

func (c *choice) String() string { return c.value }
func (c *choice) Type() string   { return strings.Join(c.allowed, "|") }

type unlisted struct{ allowed []string }

func (u *unlisted) Error() string { return "it is one of " + strings.Join(u.allowed, ", ") }
