package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/locald/locald/ipc"
)

// leftovers lists what locald made and what is there.
func (a *app) leftovers(ctx context.Context, asJSON bool) error {
	var found ipc.Leftovers
	client, err := a.connect(ctx, startNever)
	switch {
	case errors.Is(err, ipc.ErrNoDaemon):
		found, err = a.leftWithoutDaemon(ctx, ipc.LeftArgs{})
	case err == nil:
		err = client.Call(ctx, ipc.CallLeft, ipc.LeftArgs{}, &found)
	}
	if err != nil {
		return err
	}
	if asJSON {
		a.stdout.say(jsonLine(found))
	} else {
		a.stdout.say(leftoversText(found, a.paint(a.stdout)))
	}
	if len(found.Unwanted()) > 0 {
		return exitStatus(exitFailed)
	}
	return nil
}

// leftWithoutDaemon is what is there while no daemon runs.
func (a *app) leftWithoutDaemon(ctx context.Context, of ipc.LeftArgs) (ipc.Leftovers, error) {
	found := ipc.Leftovers{Things: []ipc.Thing{}}
	if a.hooks.Leftovers == nil {
		return found, nil
	}
	places, err := a.places()
	if err != nil {
		return found, err
	}
	return a.hooks.Leftovers(ctx, places, a.environ, of)
}

// thingStates are the words and colours for what can be the matter with a thing.
var thingStates = map[string][2]string{
	ipc.ThingLeft:    {"left over", red},
	ipc.ThingUnknown: {"not known", red},
	ipc.ThingForeign: {"foreign", yellow},
	ipc.ThingKept:    {"kept", ""},
	ipc.ThingUsed:    {"in use", green},
}

// leftoversText is a table of everything, separately what belongs to others,
// and in one line what it comes to.
func leftoversText(found ipc.Leftovers, p paint) string {
	if len(found.Things) == 0 {
		return "nothing is left\n"
	}
	var foreign, ours []ipc.Thing
	for _, t := range found.Things {
		if t.State == ipc.ThingForeign {
			foreign = append(foreign, t)
		} else {
			ours = append(ours, t)
		}
	}
	text := thingsText("", ours, p)
	if len(foreign) > 0 && text != "" {
		text += "\n"
	}
	text += thingsText("made for other state directories; locald never removes it", foreign, p)
	if n := len(found.Unwanted()); n > 0 {
		return text + "\n" + p.as(red, fmt.Sprintf("%d left over", n)) + "\n"
	}
	return text + "\nnothing is left over\n"
}

// verifiedText is what is there after a down, in two groups.
func verifiedText(found ipc.Leftovers, p paint) string {
	unwanted := found.Unwanted()
	kept := slices.DeleteFunc(slices.Clone(found.Things), func(t ipc.Thing) bool {
		return t.State == ipc.ThingLeft || t.State == ipc.ThingUnknown
	})
	text := thingsText("kept on purpose", kept, p)
	switch {
	case len(unwanted) > 0:
		return text + thingsText("should not be there", unwanted, p)
	case len(kept) == 0:
		return "nothing is left\n"
	}
	return text + "nothing else is left\n"
}

// thingsText is a table under a heading; nothing where there is none.
func thingsText(heading string, things []ipc.Thing, p paint) string {
	if len(things) == 0 {
		return ""
	}
	if heading != "" {
		heading = p.as(bold, heading+":") + "\n"
	}
	t := newTable("STATE", "KIND", "OF", "SIZE", "WHAT")
	for _, thing := range things {
		state, known := thingStates[thing.State]
		if !known {
			state = [2]string{thing.State, ""} // of a newer daemon
		}
		size := ""
		if thing.Kind == "file" && thing.Bytes > 0 {
			size = bytesText(thing.Bytes)
		}
		t.row(state[0], thing.Kind, ofText(thing), size, whatText(thing))[0].colour = state[1]
		if thing.Remedy != "" {
			t.row("", "", "", "", "→ "+thing.Remedy)[4].colour = yellow
		}
	}
	return heading + t.text(p, 0)
}

// widestCommand is how much of a command is shown in a table.
const widestCommand = 60

func whatText(t ipc.Thing) string {
	text := t.Name
	switch t.Kind {
	case "process":
		text = strconv.Itoa(t.PID) + " " + clip(t.Name, widestCommand)
	case "container":
		text = t.Name + " (" + t.ID + ")"
	}
	if t.Detail != "" {
		text += ": " + t.Detail
	}
	return text
}

func ofText(t ipc.Thing) string {
	switch {
	case t.Project != "" && t.Service != "":
		return t.Project + "/" + t.Service
	case t.Project != "":
		return t.Project
	}
	return t.Service
}

// bytesText is a size in the unit that suits it.
func bytesText(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB"}
	value, unit := float64(n), 0
	for value >= 1024 && unit < len(units)-1 {
		value, unit = value/1024, unit+1
	}
	if unit == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", value, units[unit])
}
