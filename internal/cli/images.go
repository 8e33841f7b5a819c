package cli

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/locald/locald/ipc"
)

func (a *app) images() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "images",
		Short: "List the images on this machine that locald knows",
		Long: `Lists the images that locald keeps itself, for engine = "builtin", and those of
other engines that projects use: by which services, and when they were last used.
Sizes are of all files of an image; images may share some.`,
		Example: `  locald images
  locald images prune        remove what no project uses`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var found ipc.Images
			if err := a.call(cmd.Context(), ipc.CallImages, ipc.NoArgs{}, &found); err != nil {
				return err
			}
			if asJSON {
				a.stdout.say(jsonLine(found))
			} else {
				a.stdout.say(imagesText(found, a.now(), a.paint(a.stdout)))
			}
			return nil
		},
	}
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		return unknownCommand(cmd, args[0])
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.AddCommand(a.pruneImages())
	return cmd
}

func (a *app) pruneImages() *cobra.Command {
	var asJSON, all bool
	cmd := &cobra.Command{
		Use:   "prune",
		Short: "Remove the images that no project uses",
		Long: `Removes the images that locald keeps itself and no project on record uses, and
what pulls that broke off have left, and says how much that freed. What a container
runs from stays, and so do the images of other engines.`,
		Example: `  locald images prune
  locald images prune --all  also those of projects that do not run`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var pruned ipc.Pruned
			if err := a.call(cmd.Context(), ipc.CallPrune, ipc.PruneArgs{All: all}, &pruned); err != nil {
				return err
			}
			if asJSON {
				a.stdout.say(jsonLine(pruned))
			} else {
				a.stdout.say(prunedText(pruned))
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "also what projects use, unless a container runs from it")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// call asks the daemon, which is started if there is none.
func (a *app) call(ctx context.Context, call string, args, answer any) error {
	client, err := a.connect(ctx, startAlways)
	if err != nil {
		return err
	}
	return client.Call(ctx, call, args, answer)
}

func imagesText(found ipc.Images, now time.Time, p paint) string {
	t := newTable("NAME", "DIGEST", "SIZE", "ENGINE", "LAST USED", "USED BY")
	for _, image := range found.Images {
		used := sinceText(image.UsedAt, now)
		if image.Held {
			used = "in use"
		}
		var by []string
		for _, use := range image.UsedBy {
			by = append(by, use.Project+"/"+use.Service)
		}
		row := t.row(image.Name, shortDigest(image.Digest), size(image.Size), image.Engine, used, strings.Join(by, ", "))
		if image.Held {
			row[4].colour = green
		}
	}
	text := "no images\n"
	if len(t.rows) > 0 {
		text = t.text(p, 0)
	}
	for _, note := range found.Notes {
		text += cell(note) + "\n"
	}
	return text
}

func prunedText(pruned ipc.Pruned) string {
	var b strings.Builder
	for _, image := range pruned.Removed {
		b.WriteString("removed " + cell(image.Name) + " (" + cell(shortDigest(image.Digest)) + ")\n")
	}
	if len(pruned.Removed) == 0 && pruned.Freed == 0 {
		return "nothing to remove\n"
	}
	return b.String() + "freed " + size(pruned.Freed) + "\n"
}

// shortDigest is what people tell digests apart by.
func shortDigest(digest string) string {
	_, hex, _ := strings.Cut(digest, ":")
	return hex[:min(len(hex), 12)]
}

// sinceText is how long ago a time was, or after a day its date.
func sinceText(stamp string, now time.Time) string {
	at, err := time.Parse(time.RFC3339Nano, stamp)
	switch passed := now.Sub(at); {
	case err != nil:
		return ""
	case passed < time.Minute:
		return "just now"
	case passed < 24*time.Hour:
		return elapsed(passed) + " ago"
	}
	return at.Local().Format(time.DateOnly)
}
